/* Attention with heads of 64 channels, on CPUs with AVX-512 BF16: products of bfloat16, sums and the
   softmax in float32. Built and called by attention.py.

   Keys are gone through in blocks, so that memory does not depend on how many there are; what a
   query has found so far is scaled down where a later block has a larger score, which is exact. No
   query depends on which others are asked for with it. */

#include <stdint.h>

#if !defined(__AVX512BF16__) || !defined(__AVX512VL__) || !defined(__AVX512BW__)

int64_t attention_memory(int64_t number) { return number & 0; }
void attend(void) {}

#else

#include <immintrin.h>
#include <math.h>

#define LANES 16
#define HEAD 64   /* channels */
#define PAIRS (HEAD / 2)
#define QUERIES 8 /* at once, in registers */
#define KEYS 256  /* of a block */
#define GROUP (2 * LANES)

/* Of all queries: the largest score, the sum of what it gave, the weighted sum of the values. */
typedef struct {
    float *largest, *sums, *found;
    int32_t *queries;  /* [number][PAIRS] pairs of channels */
    int32_t *keys;     /* of a block: [KEYS / GROUP][PAIRS][GROUP] pairs of channels */
    int32_t *values;   /* [KEYS / 2][HEAD] pairs of keys */
    float *scores;     /* [QUERIES][KEYS] */
    int32_t *weights;  /* [QUERIES][KEYS / 2] pairs of bfloat16 */
    float *end;
} Memory;

static Memory parts_of(float *memory, int64_t number) {
    Memory m;
    number = (number + QUERIES - 1) / QUERIES * QUERIES;
    m.found = (float *)(((uintptr_t)memory + 63) / 64 * 64);
    m.queries = (int32_t *)(m.found + number * HEAD);
    m.scores = (float *)(m.queries + number * PAIRS);
    m.keys = (int32_t *)(m.scores + QUERIES * KEYS);
    m.values = m.keys + KEYS * PAIRS;
    m.weights = m.values + KEYS * PAIRS;
    m.largest = (float *)(m.weights + QUERIES * KEYS / 2);
    m.sums = m.largest + number;
    m.end = m.sums + number;
    return m;
}

/* The numbers of memory that `attend` takes; 0 if this processor is not supported. */
int64_t attention_memory(int64_t number) { return parts_of(0, number).end - (float *)0 + LANES; }

/* 2^x for x <= 0, to about 1e-6 of its size. */
static inline __m512 power(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-150), x); /* in this order NaN stays */
    __m512 n = _mm512_roundscale_ps(x, 0), z = _mm512_sub_ps(x, n);
    __m512 y = _mm512_set1_ps(1.33335581e-3f);
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(9.61812911e-3f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(5.55041087e-2f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(2.40226507e-1f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(6.93147181e-1f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(1));
    return _mm512_scalef_ps(y, n);
}

/* to[i][32 of lanes] (scaled before) += the sum over pairs of rows[i][pair] * map[pair][lanes]. */
static inline __attribute__((always_inline)) void
multiply(float *to, int64_t to_stride, const float *scales, const int32_t *rows, int64_t stride,
         const int32_t *map, int64_t map_stride, int64_t pairs) {
    __m512 sums[QUERIES][2];
#pragma GCC unroll 8
    for (int i = 0; i < QUERIES; i++)
        for (int j = 0; j < 2; j++)
            sums[i][j] = scales ? _mm512_mul_ps(_mm512_set1_ps(scales[i]),
                                                _mm512_loadu_ps(to + i * to_stride + j * LANES))
                                : _mm512_setzero_ps();
    for (int64_t k = 0; k < pairs; k++, map += map_stride) {
        __m512bh a = (__m512bh)_mm512_loadu_si512(map);
        __m512bh b = (__m512bh)_mm512_loadu_si512(map + LANES);
#pragma GCC unroll 8
        for (int i = 0; i < QUERIES; i++) {
            __m512bh w = (__m512bh)_mm512_set1_epi32(rows[i * stride + k]);
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], a, w);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], b, w);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < QUERIES; i++)
        for (int j = 0; j < 2; j++) _mm512_storeu_ps(to + i * to_stride + j * LANES, sums[i][j]);
}

/* 16 numbers from ``first`` on, zeros beyond ``count``. */
static inline __m512 read(const float *from, int64_t first, int64_t count) {
    int64_t left = count - first;
    __mmask16 mask = left >= LANES ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
    return _mm512_maskz_loadu_ps(mask, from + first);
}

/* Two vectors => pairs of bfloat16, one of each. */
static inline __m512i interleave(__m512 low, __m512 high) {
    const __m512i zip = _mm512_setr_epi32(
        0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008,
        0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
    return _mm512_permutexvar_epi16(zip, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* 16 words to places ``stride`` apart, of which there are ``count``. */
static inline void scatter(int32_t *to, int64_t stride, __m512i words, int64_t count) {
    int32_t all[LANES];
    _mm512_storeu_si512(all, words);
    for (int64_t i = 0; i < LANES && i < count; i++) to[i * stride] = all[i];
}

/* Queries, with the scale of softmax and the binary logarithm of e in them. */
static void pack_queries(const Memory *m, const float *queries, int64_t channel, int64_t number) {
    const __m512 scale = _mm512_set1_ps(0.125f * 1.44269504f);
    for (int64_t i = 0; i < number; i += LANES)
        for (int64_t pair = 0; pair < PAIRS; pair++) {
            const float *from = queries + 2 * pair * channel;
            __m512 low = _mm512_mul_ps(scale, read(from, i, number));
            __m512 high = _mm512_mul_ps(scale, read(from + channel, i, number));
            int64_t whole = (number + QUERIES - 1) / QUERIES * QUERIES;
            scatter(m->queries + i * PAIRS + pair, PAIRS, interleave(low, high), whole - i);
        }
}

/* A block of keys and values in the orders that `multiply` reads; zeros beyond the last. */
static void pack(const Memory *m, const float *keys, const float *values, int64_t channel,
                 int64_t count) {
    for (int64_t key = 0; key < KEYS; key += LANES)
        for (int64_t pair = 0; pair < PAIRS; pair++) {
            const float *from = keys + 2 * pair * channel;
            __m512i both = interleave(read(from, key, count), read(from + channel, key, count));
            _mm512_storeu_si512(m->keys + (key / GROUP * PAIRS + pair) * GROUP + key % GROUP, both);
        }
    for (int64_t key = 0; key < KEYS; key += GROUP)
        for (int64_t c = 0; c < HEAD; c++) {
            const float *from = values + c * channel;
            __m512bh both = _mm512_cvtne2ps_pbh(read(from, key + LANES, count), read(from, key, count));
            scatter(m->values + key / 2 * HEAD + c, HEAD, (__m512i)both, LANES);
        }
}

/* Scores of a query => its weights for a block of keys. Returns what to scale earlier ones by. */
static float weigh(const Memory *m, int64_t query, int i, int64_t count) {
    float *scores = m->scores + i * KEYS;
    for (int64_t key = count; key < KEYS; key++) scores[key] = -INFINITY;
    __m512 most = _mm512_loadu_ps(scores);
    for (int k = LANES; k < KEYS; k += LANES) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + k));
    float before = m->largest[query], largest = _mm512_reduce_max_ps(most);
    if (largest < before) largest = before;
    __m512 sum = _mm512_setzero_ps(), offset = _mm512_set1_ps(largest);
    for (int k = 0; k < KEYS; k += GROUP) {
        __m512 low = power(_mm512_sub_ps(_mm512_loadu_ps(scores + k), offset));
        __m512 high = power(_mm512_sub_ps(_mm512_loadu_ps(scores + k + LANES), offset));
        sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
        _mm512_storeu_si512(m->weights + (i * KEYS + k) / 2, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    float scale = exp2f(before - largest);
    m->sums[query] = m->sums[query] * scale + _mm512_reduce_add_ps(sum);
    m->largest[query] = largest;
    return scale;
}

/* What `attend` of native.c computes. */
void attend(const float *queries, int64_t query_channel, const float *keys, const float *values,
            int64_t key_channel, float *out, int64_t out_channel, int64_t number, int64_t cells,
            float *memory) {
    Memory m = parts_of(memory, number);
    int64_t whole = (number + QUERIES - 1) / QUERIES * QUERIES;
    pack_queries(&m, queries, query_channel, number);
    for (int64_t i = 0; i < whole; i++) m.largest[i] = -INFINITY, m.sums[i] = 0;
    for (int64_t i = 0; i < whole * HEAD; i++) m.found[i] = 0;
    for (int64_t first = 0; first < cells; first += KEYS) {
        int64_t count = cells - first < KEYS ? cells - first : KEYS;
        pack(&m, keys + first, values + first, key_channel, count);
        for (int64_t query = 0; query < whole; query += QUERIES) {
            const int32_t *rows = m.queries + query * PAIRS;
            for (int64_t key = 0; key < KEYS; key += GROUP)
                multiply(m.scores + key, KEYS, 0, rows, PAIRS, m.keys + key * PAIRS, GROUP, PAIRS);
            float scales[QUERIES];
            for (int i = 0; i < QUERIES; i++) scales[i] = weigh(&m, query + i, i, count);
            for (int64_t c = 0; c < HEAD; c += GROUP)
                multiply(m.found + query * HEAD + c, HEAD, scales, m.weights, KEYS / 2, m.values + c,
                         HEAD, KEYS / 2);
        }
    }
    for (int64_t c = 0; c < HEAD; c++)
        for (int64_t i = 0; i < number; i++)
            out[c * out_channel + i] = m.found[i * HEAD + c] / m.sums[i];
}

#endif
