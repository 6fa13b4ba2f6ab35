/* What most of a training step is spent on, for CPUs with AVX-512 BF16: equivariant convolutions of
   3x3, forward and backward, and a group norm with SiLU. Built and called by kernels.py.

   Features are bfloat16, [batch, channels, rows, columns], and carry the regular representation of
   the flips: four blocks of channels, block 2v + h for the element that flips v times down and h
   times across. Sums and differences of the blocks are even or odd under each flip (their parity,
   2v + h again, v and h 1 where odd), and so are sums and differences of neighbours:

       taps -1, 0, 1 of an axis => middle, sum of both sides (even), their difference (odd)

   An equivariant convolution cannot mix what differs in parity. So each of the four parities of the
   result is a product of its own with the 9 of 36 combinations that share its parity: a quarter of
   the products of a plain convolution, with the same result. parity.py turns weights into this
   form; `slots` is the order of the combinations there and here. */

#if !defined(__AVX512BF16__) || !defined(__AVX512VL__) || !defined(__AVX512BW__)

int out_at_once(void) { return 0; } /* other processors train with torch's own operations */

#else

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define OUT 8                   /* channels of a result at once, in registers */
#define SLOTS 9                 /* combinations for each parity of the result */
#define MAPS_BYTES (448 * 1024) /* of combinations at once: about half of a second-level cache */
#define SUM_PIXELS 512          /* that a gradient is summed over in registers */

typedef uint16_t bf16;

typedef struct {
    const bf16 *x;        /* [batch, 4 * channels, height, width]; half as high and wide if doubled */
    const float *weights; /* [4, out, SLOTS, channels]; [4, channels, SLOTS, out] if adjoint */
    const float *bias;    /* [out], the same for the four blocks, or null */
    const bf16 *residual; /* like y, to be added, or null */
    bf16 *y;              /* [batch, 4 * out, height, width], of one picture */
    const bf16 *dy;       /* like y: the gradient, for the weights' */
    float *dweights;      /* [4, out, SLOTS, channels] */
    float *dbias;         /* [out] */
    int32_t batch, channels, out, height, width; /* channels and out of one block */
    int32_t pictures; /* 1; 2 if each of `batch` is two images of 8 columns, side by side in a row */
    int32_t doubled;                             /* whether each pixel of x stands for 2 x 2 */
    int32_t adjoint; /* whether x is a gradient, to be taken from results back to inputs */
    int32_t threads;
} Convolution;

/* ---- reading and writing ---- */

static inline __m512 widen(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
static inline __m512 load16(const bf16 *p) { return widen(_mm256_loadu_si256((const void *)p)); }
static inline __m256i narrow(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }
static inline void store16(bf16 *p, __m512 x) { _mm256_storeu_si256((void *)p, narrow(x)); }

/* A vector of a row: `next` is the distance to the second picture of the row, 0 if there is none. */
static inline __m512 load_row(const bf16 *p, int64_t next) {
    const __m128i *low = (const void *)p, *high = (const void *)(p + next);
    return next ? widen(_mm256_set_m128i(_mm_loadu_si128(high), _mm_loadu_si128(low))) : load16(p);
}
static inline __m512 load_row_twice(const bf16 *p, int64_t next) {
    const __m256i twice = _mm256_setr_epi16(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const __m128i *low = (const void *)p, *high = (const void *)(p + next);
    __m128i x = next ? _mm_unpacklo_epi64(_mm_loadl_epi64(low), _mm_loadl_epi64(high))
                     : _mm_loadu_si128(low);
    return widen(_mm256_permutexvar_epi16(twice, _mm256_castsi128_si256(x)));
}
static inline void store_row(bf16 *p, int64_t next, __m512 x) {
    if (!next) return store16(p, x);
    _mm_storeu_si128((void *)p, _mm256_castsi256_si128(narrow(x)));
    _mm_storeu_si128((void *)(p + next), _mm256_extracti128_si256(narrow(x), 1));
}
static inline __m512i interleave(__m512 low, __m512 high) {
    const __m512i zip = _mm512_setr_epi32(
        0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008,
        0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
    return _mm512_permutexvar_epi16(zip, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* Four blocks => four parities, and, as it is its own inverse but for a factor of 4, back. */
static inline void exchange(__m512 f[4]) {
    __m512 a = _mm512_add_ps(f[0], f[1]), b = _mm512_sub_ps(f[0], f[1]);
    __m512 c = _mm512_add_ps(f[2], f[3]), d = _mm512_sub_ps(f[2], f[3]);
    f[0] = _mm512_add_ps(a, c);
    f[1] = _mm512_add_ps(b, d);
    f[2] = _mm512_sub_ps(a, c);
    f[3] = _mm512_sub_ps(b, d);
}

/* ---- combinations ---- */

/* [parity, down, across] => the place among the combinations of one parity of the result. */
static void slots(int32_t slot[4][3][3]) {
    int32_t next[4] = {0};
    for (int p = 0; p < 4; p++)
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++)
                slot[p][a][b] = next[p ^ (a == 2) << 1 ^ (b == 2)]++;
}

/* One row of one channel of all blocks, combined down: to[parity][down][1 + column]. */
static void combine_down(const Convolution *j, int64_t image, int32_t channel, int32_t row,
                         float *to, int64_t stride) {
    int32_t half = j->doubled, height = j->height >> half;
    int32_t width = (j->width >> half) / j->pictures;
    int64_t plane = (int64_t)height * width;
    const bf16 *x = j->x + (image * j->pictures * 4 * j->channels + channel) * plane;
    int64_t block = j->channels * plane, next = (j->pictures - 1) * 4 * block;
    const __m512 zero = _mm512_setzero_ps();
    for (int32_t column = 0; column < j->width; column += LANES) {
        __m512 rows[3][4];
        for (int r = 0; r < 3; r++) {
            int32_t at = row + r - 1;
            for (int k = 0; k < 4; k++) {
                const bf16 *p = x + k * block + (int64_t)(at >> half) * width + (column >> half);
                rows[r][k] = at < 0 || at >= j->height ? zero
                             : half                    ? load_row_twice(p, next)
                                                       : load_row(p, next);
            }
        }
        for (int k = 0; k < 4; k++) {
            __m512 up = rows[0][k], down = rows[2][k];
            rows[0][k] = rows[1][k];
            rows[1][k] = _mm512_add_ps(up, down);
            rows[2][k] = _mm512_sub_ps(down, up);
        }
        for (int a = 0; a < 3; a++) {
            exchange(rows[a]);
            for (int p = 0; p < 4; p++)
                _mm512_storeu_ps(to + (p * 3 + a) * stride + 1 + column, rows[a][p]);
        }
    }
    for (int i = 0; i < 12; i++) to[i * stride] = to[i * stride + 1 + j->width] = 0;
}

/* Two pictures of a row do not see each other. */
static inline void combine_across(const float *row, int32_t pictures, __m512 to[3]) {
    __m512 left = _mm512_maskz_loadu_ps(pictures == 2 ? 0xfeff : 0xffff, row);
    __m512 right = _mm512_maskz_loadu_ps(pictures == 2 ? 0xff7f : 0xffff, row + 2);
    to[0] = _mm512_loadu_ps(row + 1);
    to[1] = _mm512_add_ps(left, right);
    to[2] = _mm512_sub_ps(right, left);
}

/* Rows of all combinations, for products over channels: maps[parity][pair][vector][lane][2]. */
static void pair_maps(const Convolution *j, int64_t image, int32_t first, int32_t rows,
                      int32_t slot[4][3][3], float *line, bf16 *maps, int32_t vectors) {
    int64_t stride = j->width + 2 * LANES, pairs = SLOTS * j->channels / 2;
    float *second = line + 12 * stride;
    for (int32_t channel = 0; channel < j->channels; channel += 2)
        for (int32_t r = 0; r < rows; r++) {
            combine_down(j, image, channel, first + r, line, stride);
            combine_down(j, image, channel + 1, first + r, second, stride);
            for (int p = 0; p < 4; p++)
                for (int a = 0; a < 3; a++) {
                    int64_t from = (p * 3 + a) * stride;
                    bf16 *to[3];
                    for (int b = 0; b < 3; b++) {
                        int q = p ^ (a == 2) << 1 ^ (b == 2);
                        int64_t pair = (slot[p][a][b] * j->channels + channel) / 2;
                        int64_t vector = (q * pairs + pair) * vectors + r * (j->width / LANES);
                        to[b] = maps + vector * 2 * LANES;
                    }
                    for (int32_t column = 0; column < j->width; column += LANES) {
                        __m512 low[3], high[3];
                        combine_across(line + from + column, j->pictures, low);
                        combine_across(second + from + column, j->pictures, high);
                        for (int b = 0; b < 3; b++)
                            _mm512_storeu_si512(to[b] + 2 * column, interleave(low[b], high[b]));
                    }
                }
        }
}

/* The same for products over pixels: maps[parity][slot * channels + channel][pixel]. */
static void pixel_maps(const Convolution *j, int64_t image, int32_t first, int32_t rows,
                       int32_t slot[4][3][3], float *line, bf16 *maps, int64_t pixels) {
    int64_t stride = j->width + 2 * LANES, all = SLOTS * j->channels;
    for (int32_t channel = 0; channel < j->channels; channel++)
        for (int32_t r = 0; r < rows; r++) {
            combine_down(j, image, channel, first + r, line, stride);
            for (int p = 0; p < 4; p++)
                for (int a = 0; a < 3; a++)
                    for (int32_t column = 0; column < j->width; column += LANES) {
                        __m512 combined[3];
                        combine_across(line + (p * 3 + a) * stride + column, j->pictures, combined);
                        for (int b = 0; b < 3; b++) {
                            int q = p ^ (a == 2) << 1 ^ (b == 2);
                            int64_t at = q * all + slot[p][a][b] * j->channels + channel;
                            store16(maps + at * pixels + r * j->width + column, combined[b]);
                        }
                    }
        }
}

/* ---- weights ---- */

/* One row of weights as `multiply` reads them: [4, out / OUT, SLOTS * channels / 2, OUT, 2]. The
   adjoint exchanges inputs and results; a difference of neighbours changes its sign. */
static void pack(const Convolution *j, int32_t slot[4][3][3], int32_t q, int32_t channel, bf16 *to) {
    to += (int64_t)(q * j->out + channel / OUT * OUT) * SLOTS * j->channels + channel % OUT * 2;
    for (int p = 0; p < 4; p++)
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++) {
                if ((p ^ (a == 2) << 1 ^ (b == 2)) != q) continue;
                bf16 *pair = to + (int64_t)slot[p][a][b] * j->channels * OUT;
                const float *w = j->weights + ((int64_t)(q * j->out + channel) * SLOTS +
                                               slot[p][a][b]) * j->channels;
                int64_t step = 1;
                float sign = 1;
                if (j->adjoint) {
                    step = (int64_t)SLOTS * j->out;
                    w = j->weights + p * j->channels * step + slot[q][a][b] * j->out + channel;
                    sign = (a == 2) == (b == 2) ? 1 : -1;
                }
                for (int32_t c = 0; c < j->channels; c += 2, pair += 2 * OUT) {
                    __m128 both = _mm_setr_ps(sign * w[c * step], sign * w[(c + 1) * step], 0, 0);
                    __m128i narrowed = (__m128i)_mm_cvtneps_pbh(both);
                    memcpy(pair, &narrowed, 2 * sizeof(bf16));
                }
            }
}

/* ---- forward ---- */

static inline __attribute__((always_inline)) void multiply(const bf16 *maps, const bf16 *weights,
                                                           int64_t pairs, int64_t vectors,
                                                           float (*to)[2 * LANES], const int wide) {
    __m512 sums[OUT][2];
    for (int i = 0; i < OUT; i++) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
    const int32_t *w = (const int32_t *)weights;
    for (int64_t pair = 0; pair < pairs; pair++, maps += vectors * 2 * LANES, w += OUT) {
        __m512bh x0 = (__m512bh)_mm512_loadu_si512(maps);
        __m512bh x1 = wide ? (__m512bh)_mm512_loadu_si512(maps + 2 * LANES) : x0;
#pragma GCC unroll 8
        for (int i = 0; i < OUT; i++) {
            __m512bh both = (__m512bh)_mm512_set1_epi32(w[i]);
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], x0, both);
            if (wide) sums[i][1] = _mm512_dpbf16_ps(sums[i][1], x1, both);
        }
    }
    for (int i = 0; i < OUT; i++) {
        _mm512_store_ps(to[i], sums[i][0]);
        if (wide) _mm512_store_ps(to[i] + LANES, sums[i][1]);
    }
}

/* Parities of results => blocks, with bias and residual, where they belong. */
static inline void put(const Convolution *j, int64_t image, int32_t row, int32_t column,
                       int32_t channel, float (*results)[OUT][2 * LANES], int half) {
    int64_t plane = (int64_t)j->height * j->width / j->pictures;
    int64_t next = (j->pictures - 1) * 4 * j->out * plane;
    image *= j->pictures;
    for (int i = 0; i < OUT; i++) {
        __m512 f[4];
        for (int q = 0; q < 4; q++) f[q] = _mm512_load_ps(results[q][i] + half * LANES);
        exchange(f);
        __m512 bias = _mm512_set1_ps(j->bias ? j->bias[channel + i] : 0);
        for (int k = 0; k < 4; k++) {
            int64_t at = ((image * 4 + k) * j->out + channel + i) * plane +
                         (int64_t)row * j->width / j->pictures + column;
            __m512 y = _mm512_add_ps(f[k], bias);
            if (j->residual) y = _mm512_add_ps(y, load_row(j->residual + at, next));
            store_row(j->y + at, next, y);
        }
    }
}

static void *aligned(int64_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

static int32_t rows_at_once(const Convolution *j, int64_t bytes_a_row, int64_t bytes) {
    int64_t rows = bytes / bytes_a_row;
    return rows < 1 ? 1 : rows > j->height ? j->height : rows;
}

/* Returns 0, or -1 where memory ran out. */
int32_t convolve(const Convolution *j) {
    int32_t slot[4][3][3], failed = 0;
    slots(slot);
    int64_t pairs = SLOTS * j->channels / 2;
    int32_t rows = rows_at_once(j, 4 * pairs * j->width * 2 * sizeof(bf16), MAPS_BYTES);
    int32_t parts = (j->height + rows - 1) / rows;
    bf16 *weights = aligned(4 * pairs * j->out * 2 * sizeof(bf16));
    if (!weights) return -1;
#pragma omp parallel num_threads(j->threads)
    {
#pragma omp for
        for (int32_t row = 0; row < 4 * j->out; row++)
            pack(j, slot, row / j->out, row % j->out, weights);
        bf16 *maps = aligned(4 * pairs * rows * j->width * 2 * sizeof(bf16));
        float *line = aligned(2 * 12 * (j->width + 2 * LANES) * sizeof(float));
        if (!maps || !line) failed = -1;
#pragma omp for schedule(dynamic)
        for (int64_t part = 0; part < (int64_t)j->batch * parts; part++) {
            if (failed) continue;
            int64_t image = part / parts;
            int32_t first = part % parts * rows;
            int32_t count = j->height - first < rows ? j->height - first : rows;
            int32_t vectors = count * (j->width / LANES);
            pair_maps(j, image, first, count, slot, line, maps, vectors);
            for (int32_t vector = 0; vector < vectors; vector += 2) {
                int wide = vector + 1 < vectors;
                for (int32_t channel = 0; channel < j->out; channel += OUT) {
                    float results[4][OUT][2 * LANES] __attribute__((aligned(64)));
                    for (int q = 0; q < 4; q++) {
                        const bf16 *from = maps + (q * pairs * vectors + vector) * 2 * LANES;
                        const bf16 *w = weights + ((int64_t)q * j->out + channel) * pairs * 2;
                        if (wide)
                            multiply(from, w, pairs, vectors, results[q], 1);
                        else
                            multiply(from, w, pairs, vectors, results[q], 0);
                    }
                    for (int half = 0; half <= wide; half++) {
                        int32_t pixel = (vector + half) * LANES;
                        put(j, image, first + pixel / j->width, pixel % j->width, channel, results,
                            half);
                    }
                }
            }
        }
        free(maps);
        free(line);
    }
    free(weights);
    return failed;
}

/* ---- backward, for weights ---- */

/* The blocks of a gradient => its parities, [parity][channel][pixel], and their sums for the bias. */
static void exchanged(const Convolution *j, int64_t image, int32_t first, int32_t rows, bf16 *to,
                      int64_t pixels, float *dbias) {
    int64_t plane = (int64_t)j->height * j->width / j->pictures;
    int64_t next = (j->pictures - 1) * 4 * j->out * plane;
    for (int32_t channel = 0; channel < j->out; channel++) {
        __m512 sum = _mm512_setzero_ps();
        const bf16 *dy = j->dy + (image * j->pictures * 4 * j->out + channel) * plane +
                         (int64_t)first * j->width / j->pictures;
        for (int64_t pixel = 0; pixel < (int64_t)rows * j->width; pixel += LANES) {
            __m512 f[4];
            for (int k = 0; k < 4; k++)
                f[k] = load_row(dy + k * j->out * plane + pixel / j->pictures, next);
            exchange(f);
            sum = _mm512_add_ps(sum, f[0]);
            for (int q = 0; q < 4; q++)
                store16(to + ((int64_t)q * j->out + channel) * pixels + pixel, f[q]);
        }
        dbias[channel] += _mm512_reduce_add_ps(sum);
    }
}

/* The sums of 16 vectors, one a lane. */
static inline __m512 sums_of(__m512 v[16]) {
    for (int i = 0; i < 8; i++) { /* lanes of v[2i] and v[2i+1] side by side */
        __m512 even = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        __m512 odd = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
        v[i] = _mm512_add_ps(even, odd);
    }
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(v[2 * i]), b = _mm512_castps_pd(v[2 * i + 1]);
        v[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    for (int i = 0; i < 2; i++)
        v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x88),
                         _mm512_shuffle_f32x4(v[0], v[1], 0xdd));
}

/* to[4][4 of k] += the sums over pixels of dy[4][pixel] * maps[4][pixel]. */
static inline void sum_products(const bf16 *dy, const bf16 *maps, int64_t pixels, float *to,
                                int64_t all) {
    __m512 sums[16];
    for (int i = 0; i < 16; i++) sums[i] = _mm512_setzero_ps();
    for (int64_t pixel = 0; pixel < pixels; pixel += 2 * LANES) {
        __m512bh a[4], b[4];
        for (int i = 0; i < 4; i++) a[i] = (__m512bh)_mm512_loadu_si512(dy + i * pixels + pixel);
        for (int i = 0; i < 4; i++) b[i] = (__m512bh)_mm512_loadu_si512(maps + i * pixels + pixel);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) sums[i] = _mm512_dpbf16_ps(sums[i], a[i / 4], b[i % 4]);
    }
    __m512 total = sums_of(sums);
    for (int i = 0; i < 4; i++) {
        __m128 row = i == 0   ? _mm512_extractf32x4_ps(total, 0)
                     : i == 1 ? _mm512_extractf32x4_ps(total, 1)
                     : i == 2 ? _mm512_extractf32x4_ps(total, 2)
                              : _mm512_extractf32x4_ps(total, 3);
        _mm_storeu_ps(to + i * all, _mm_add_ps(_mm_loadu_ps(to + i * all), row));
    }
}

extern int omp_get_thread_num(void);

/* Returns 0, or -1 where memory ran out. Each thread has sums of its own, added in a fixed order. */
int32_t convolve_weights(const Convolution *j) {
    int32_t slot[4][3][3], failed = 0;
    slots(slot);
    int64_t all = SLOTS * j->channels, size = 4 * j->out * all;
    int32_t rows = rows_at_once(j, j->width, SUM_PIXELS); /* of one image, or several whole ones: */
    int32_t images = SUM_PIXELS / (j->height * j->width), most = j->batch / j->threads;
    images = images < most ? images : most;
    images = images > 1 ? images : 1;
    int32_t parts = (j->height + rows - 1) / rows, groups = (j->batch + images - 1) / images;
    int64_t size_of_one = (int64_t)rows * j->width;
    int64_t pixels = (images * size_of_one + 2 * LANES - 1) / (2 * LANES) * (2 * LANES);
    float *sums = aligned(j->threads * (size + j->out) * sizeof(float));
    if (!sums) return -1;
#pragma omp parallel num_threads(j->threads)
    {
        float *dweights = sums + omp_get_thread_num() * (size + j->out), *dbias = dweights + size;
        bf16 *maps = aligned(4 * all * pixels * sizeof(bf16));
        bf16 *dy = aligned((int64_t)4 * j->out * pixels * sizeof(bf16));
        float *line = aligned(12 * (j->width + 2 * LANES) * sizeof(float));
        if (!maps || !dy || !line) failed = -1;
        memset(dweights, 0, (size + j->out) * sizeof(float));
        if (!failed) memset(maps, 0, 4 * all * pixels * sizeof(bf16));
        if (!failed) memset(dy, 0, (int64_t)4 * j->out * pixels * sizeof(bf16));
#pragma omp for schedule(static)
        for (int64_t part = 0; part < (int64_t)groups * parts; part++) {
            if (failed) continue;
            int64_t image = part / parts * images;
            int32_t first = part % parts * rows;
            int32_t count = j->height - first < rows ? j->height - first : rows;
            int64_t last = image + images < j->batch ? image + images : j->batch;
            if (count < rows || last < image + images)
                memset(dy, 0, (int64_t)4 * j->out * pixels * sizeof(bf16));
            for (int64_t at = 0; image < last; image++, at += size_of_one) {
                pixel_maps(j, image, first, count, slot, line, maps + at, pixels);
                exchanged(j, image, first, count, dy + at, pixels, dbias);
            }
            for (int q = 0; q < 4; q++)
                for (int64_t k = 0; k < all; k += 4)
                    for (int32_t channel = 0; channel < j->out; channel += 4)
                        sum_products(dy + ((int64_t)q * j->out + channel) * pixels,
                                     maps + (q * all + k) * pixels, pixels,
                                     dweights + ((int64_t)q * j->out + channel) * all + k, all);
        }
        free(maps);
        free(dy);
        free(line);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < size + j->out; i++) {
            float sum = 0;
            for (int32_t thread = 0; thread < j->threads; thread++)
                sum += sums[thread * (size + j->out) + i];
            *(i < size ? j->dweights + i : j->dbias + i - size) = sum;
        }
    }
    free(sums);
    return failed;
}

/* ---- group norm and SiLU ---- */

typedef struct {
    const bf16 *x;             /* [batch, channels, pixels] */
    const float *scale, *shift; /* [channels] */
    bf16 *y;                   /* like x */
    float *mean, *deviation;   /* [batch, groups]; the inverse of the deviation */
    const bf16 *dy;            /* like y */
    bf16 *dx;                  /* like x */
    float *dscale, *dshift;    /* [batch, channels] */
    int32_t batch, channels, groups, threads;
    int64_t pixels;
    float epsilon;
} Norm;

/* exp(-x), as in Cephes. */
static inline __m512 exp_negative(__m512 x) {
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(87)), _mm512_set1_ps(-87));
    __m512 z = _mm512_sub_ps(_mm512_setzero_ps(), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(z, _mm512_set1_ps(1.44269504f)), 0);
    z = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), z);
    z = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), z);
    __m512 y = _mm512_set1_ps(1.9875691500e-4f);
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(1.3981999507e-3f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(8.3334519073e-3f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(4.1665795894e-2f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(1.6666665459e-1f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(5.0000001201e-1f));
    y = _mm512_fmadd_ps(_mm512_mul_ps(y, z), z, _mm512_add_ps(z, _mm512_set1_ps(1)));
    return _mm512_scalef_ps(y, n);
}

static inline __m512 sigmoid(__m512 x) {
    __m512 one = _mm512_set1_ps(1);
    return _mm512_div_ps(one, _mm512_add_ps(one, exp_negative(x)));
}

void normalise(const Norm *j) {
    int32_t wide = j->channels / j->groups;
    int64_t size = wide * j->pixels;
#pragma omp parallel for schedule(static) num_threads(j->threads)
    for (int64_t part = 0; part < (int64_t)j->batch * j->groups; part++) {
        const bf16 *x = j->x + part * size;
        double total = 0, squares = 0;
        for (int32_t c = 0; c < wide; c++) { /* a channel at a time, so that sums stay exact enough */
            __m512 sum = _mm512_setzero_ps(), square = sum;
            for (int64_t i = 0; i < j->pixels; i += LANES) {
                __m512 v = load16(x + c * j->pixels + i);
                sum = _mm512_add_ps(sum, v);
                square = _mm512_fmadd_ps(v, v, square);
            }
            total += _mm512_reduce_add_ps(sum);
            squares += _mm512_reduce_add_ps(square);
        }
        double mean = total / size, variance = squares / size - mean * mean;
        if (variance < 0) variance = 0;
        float inverse = 1 / __builtin_sqrt(variance + j->epsilon);
        j->mean[part] = mean;
        j->deviation[part] = inverse;
        for (int32_t c = 0; c < wide; c++) {
            int32_t channel = part % j->groups * wide + c;
            __m512 scale = _mm512_set1_ps(j->scale[channel] * inverse);
            __m512 shift = _mm512_set1_ps(j->shift[channel] - mean * j->scale[channel] * inverse);
            bf16 *y = j->y + part * size + c * j->pixels;
            for (int64_t i = 0; i < j->pixels; i += LANES) {
                __m512 h = _mm512_fmadd_ps(load16(x + c * j->pixels + i), scale, shift);
                store16(y + i, _mm512_mul_ps(h, sigmoid(h)));
            }
        }
    }
}

/* The gradient before SiLU, and x normalised, of one vector. */
static inline __m512 before_silu(__m512 dy, __m512 h) {
    __m512 s = sigmoid(h), one = _mm512_set1_ps(1);
    return _mm512_mul_ps(dy, _mm512_mul_ps(s, _mm512_fmadd_ps(h, _mm512_sub_ps(one, s), one)));
}

void normalise_back(const Norm *j) {
    int32_t wide = j->channels / j->groups;
    int64_t size = wide * j->pixels;
#pragma omp parallel for schedule(static) num_threads(j->threads)
    for (int64_t part = 0; part < (int64_t)j->batch * j->groups; part++) {
        const bf16 *x = j->x + part * size, *dy = j->dy + part * size;
        bf16 *dx = j->dx + part * size;
        float mean = j->mean[part], inverse = j->deviation[part];
        double sum_scaled = 0, sum_product = 0;
        __m512 offset = _mm512_set1_ps(-mean * inverse), factor = _mm512_set1_ps(inverse);
        for (int32_t c = 0; c < wide; c++) {
            int64_t channel = part % j->groups * wide + c, at = part / j->groups * j->channels + channel;
            __m512 scale = _mm512_set1_ps(j->scale[channel]), shift = _mm512_set1_ps(j->shift[channel]);
            __m512 sum = _mm512_setzero_ps(), product = sum;
            for (int64_t i = c * j->pixels; i < (c + 1) * j->pixels; i += LANES) {
                __m512 normal = _mm512_fmadd_ps(load16(x + i), factor, offset);
                __m512 d = before_silu(load16(dy + i), _mm512_fmadd_ps(normal, scale, shift));
                sum = _mm512_add_ps(sum, d);
                product = _mm512_fmadd_ps(d, normal, product);
            }
            j->dshift[at] = _mm512_reduce_add_ps(sum);
            j->dscale[at] = _mm512_reduce_add_ps(product);
            sum_scaled += j->dshift[at] * j->scale[channel];
            sum_product += j->dscale[at] * j->scale[channel];
        }
        __m512 first = _mm512_set1_ps(sum_scaled / size), second = _mm512_set1_ps(sum_product / size);
        for (int32_t c = 0; c < wide; c++) {
            int64_t channel = part % j->groups * wide + c;
            __m512 scale = _mm512_set1_ps(j->scale[channel]), shift = _mm512_set1_ps(j->shift[channel]);
            for (int64_t i = c * j->pixels; i < (c + 1) * j->pixels; i += LANES) {
                __m512 normal = _mm512_fmadd_ps(load16(x + i), factor, offset);
                __m512 d = before_silu(load16(dy + i), _mm512_fmadd_ps(normal, scale, shift));
                d = _mm512_fmsub_ps(d, scale, _mm512_fmadd_ps(normal, second, first));
                store16(dx + i, _mm512_mul_ps(d, factor));
            }
        }
    }
}

int out_at_once(void) { return OUT; }

#endif
