/* Convolutions with weights that are tied under the flips, on CPUs with AVX-512 BF16: products of
   bfloat16, sums in float32. Built and called by bfloat16.py, with the `KernelCall` of native.c.

   Hidden features carry the regular representation of the flips: four blocks of channels, block
   2v + h for the element that flips v times down and h times across. Sums and differences of the
   blocks are even or odd under each flip (their parity, 2v + h again), and so are those of what
   lies side by side:

       taps -1, 0, 1 of an axis, stride 1  => middle, sum of both sides, their difference
       taps 0, 1 of an axis, stride 2      => sum, difference

   A tied convolution cannot mix what differs in parity. So each of the four parities of the result
   is a product of its own with those combinations that share its parity: 9 of 36 with stride 1, a
   quarter of the products of a plain convolution. Combinations are made in float32, and rounded once.

   The inner loop takes 32 pixels of pairs of combinations, [pair][pixel][2], and multiplies them by
   weights of 8 channels: `multiply` in vectors, by weights [pair][channel][2]; `multiply_tiles` in the
   tiles of AMX, 16 pairs at a time, by weights [channel][pair][2] of these. The last pairs are then
   filled up with zeros. With -DEMULATED_TILES it does the same without AMX, to be tested anywhere.

   Each row of the result is computed for itself, in columns that depend on the width alone: so strips
   change no bit of it. */

#include <stdint.h>

#if !defined(__AVX512BF16__) || !defined(__AVX512VL__) || !defined(__AVX512BW__)

/* Other processors compute in float32. */
int32_t channels_out_at_once(void) { return 0; }
int32_t pairs_at_once(void) { return 1; }
int32_t use_tiles(int32_t wanted) { return wanted & 0; }
int64_t convolve(const void *job) { return (intptr_t)job & 0; }
int64_t halve(const void *job) { return (intptr_t)job & 0; }
int64_t mix(const void *job) { return (intptr_t)job & 0; }

#else

#include <immintrin.h>
#include <string.h>

#define LANES 16
#define OUT 8                       /* channels of a result at once, in registers */
#define TOGETHER 2                  /* vectors of pixels at once */
#define GROUP (LANES * TOGETHER)
#define COLUMNS_BYTES (512 * 1024)  /* of columns at once: half of a usual second-level cache */
#define ORDER 4                     /* of the group */
#define TILE_PAIRS 16               /* that a tile of AMX has */

typedef struct { /* as in native.c; channels are those of all four blocks */
    const float *x;
    const __m512i *weights; /* [parity][channels_out / 4 / OUT][pairs / n][OUT][n][2] bfloat16, n pairs_at_once */
    const float *bias, *scale, *shift, *residual;
    float *out;
    float *memory;
    int64_t memory_size;
    int64_t x_channel, residual_channel, out_channel;
    int32_t channels, height, width, channels_out;
    int32_t start, rows, doubled;
} Job;

/* How a convolution combines neighbours: `down` ways down and as many across. */
typedef struct {
    int taps, stride, ways;
} Kind;
static const Kind SAME = {3, 1, 3}, HALVE = {2, 2, 2}, MIX = {1, 1, 1};

int32_t channels_out_at_once(void) { return OUT; }

static int32_t are_tiles_used; /* by all threads: set before the first convolution */
int32_t pairs_at_once(void) { return are_tiles_used ? TILE_PAIRS : 1; }

/* ---- numbers ---- */

/* SiLU(x * scale + shift), to about 1e-6 of its size. */
static inline __m512 activate(__m512 x, __m512 scale, __m512 shift) {
    x = _mm512_fmadd_ps(x, scale, shift);
    __m512 z = _mm512_min_ps(_mm512_set1_ps(126), _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f)));
    __m512 n = _mm512_roundscale_ps(z, 0);
    z = _mm512_sub_ps(z, n);
    __m512 y = _mm512_set1_ps(1.33335581e-3f); /* 2^z, a polynomial */
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(9.61812911e-3f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(5.55041087e-2f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(2.40226507e-1f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(6.93147181e-1f));
    y = _mm512_fmadd_ps(y, z, _mm512_set1_ps(1));
    y = _mm512_add_ps(_mm512_scalef_ps(y, n), _mm512_set1_ps(1));
    return _mm512_div_ps(x, y);
}

/* Two vectors => pairs of bfloat16, one of each. */
static inline __m512i interleave(__m512 low, __m512 high) {
    const __m512i zip = _mm512_setr_epi32(
        0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008,
        0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
    return _mm512_permutexvar_epi16(zip, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* Four blocks => four parities; its own inverse but for a factor of 4. */
static inline __attribute__((always_inline)) void exchange(__m512 f[ORDER]) {
    __m512 a = _mm512_add_ps(f[0], f[1]), b = _mm512_sub_ps(f[0], f[1]);
    __m512 c = _mm512_add_ps(f[2], f[3]), d = _mm512_sub_ps(f[2], f[3]);
    f[0] = _mm512_add_ps(a, c);
    f[1] = _mm512_add_ps(b, d);
    f[2] = _mm512_sub_ps(a, c);
    f[3] = _mm512_sub_ps(b, d);
}

#define SHIFTED(next, here, by)                                                                    \
    _mm512_castsi512_ps(                                                                           \
        _mm512_alignr_epi32(_mm512_castps_si512(next), _mm512_castps_si512(here), by))

static inline __mmask16 first_lanes(int64_t count) {
    return count >= LANES ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

/* ---- columns that are computed together ---- */

static int least(int a, int b) { return a < b ? a : b; }
static int up_to(int x, int unit) { return (x + unit - 1) / unit * unit; }

typedef struct {
    int columns;      /* of the result, at most: a multiple of GROUP */
    int channels;     /* of a block */
    int ring_vectors; /* of a row in `ring` */
    int64_t pairs;    /* of combinations for each parity of the result */
    int64_t room;     /* for these: whole tiles */
    __m512 *ring;     /* [taps][channels][parity][ring_vectors], rows of the parities of x */
    __m512i *maps;    /* [columns / GROUP][parity][room][TOGETHER], combinations of one row */
    float *sums;      /* [columns / GROUP][parity][channels_out of a block][GROUP], of one row */
    int64_t size;     /* of all, in numbers */
    int32_t slot[ORDER][3][3]; /* [parity of x][down][across] => place among those of a result's */
} Block;

static Block block_of(const Job *job, Kind kind) {
    Block block = {.channels = job->channels / ORDER};
    int all = kind.ways * kind.ways, width = (job->width << job->doubled) / kind.stride;
    int per_column = job->channels * (2 * all + 4 * kind.taps * kind.stride);
    int most = COLUMNS_BYTES / per_column / GROUP * GROUP;
    most = most < GROUP ? GROUP : most;
    int times = (width + most - 1) / most;
    block.columns = up_to((width + times - 1) / times, GROUP);
    block.ring_vectors = kind.stride * block.columns / LANES + kind.stride;
    block.pairs = (int64_t)all * block.channels / 2;
    block.room = up_to(block.pairs, TILE_PAIRS);
    int32_t next[ORDER] = {0};
    for (int p = 0; p < ORDER; p++)
        for (int a = 0; a < kind.ways; a++)
            for (int b = 0; b < kind.ways; b++) {
                /* The last way is the difference, where there is more than one. */
                int odd = kind.ways == 1 ? 0 : (a == kind.ways - 1) << 1 | (b == kind.ways - 1);
                block.slot[p][a][b] = next[p ^ odd]++;
            }
    block.ring = (__m512 *)(((uintptr_t)job->memory + 63) / 64 * 64);
    block.maps = (__m512i *)(block.ring + (int64_t)kind.taps * job->channels * block.ring_vectors);
    block.sums = (float *)(block.maps + ORDER * block.room * (block.columns / LANES));
    float *end = block.sums + (int64_t)job->channels_out * block.columns;
    block.size = end - (float *)block.ring + LANES;
    return block;
}

/* ---- reading ---- */

/* 16 columns from `column` on of a row of a channel, zeros where there are none. */
static inline __m512 read_columns(const Job *job, int channel, int row, int column) {
    const float *from = job->x + channel * job->x_channel +
                        (int64_t)(row >> job->doubled) * job->width;
    int width = job->width << job->doubled;
    __mmask16 mask = first_lanes(width - column) & ~first_lanes(-column);
    if (job->doubled) {
        const __m512i odd = _mm512_setr_epi32(0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8);
        int first = column >> 1; /* column is odd */
        __mmask16 there = first_lanes(job->width - first) & ~first_lanes(-first);
        return _mm512_maskz_permutexvar_ps(mask, odd, _mm512_maskz_loadu_ps(there, from + first));
    }
    __m512 x = _mm512_maskz_loadu_ps(mask, from + column);
    if (!job->scale) return x;
    return _mm512_maskz_mov_ps(mask, activate(x, _mm512_set1_ps(job->scale[channel]),
                                              _mm512_set1_ps(job->shift[channel])));
}

/* The parities of a row of one channel of all blocks, from `column` on. */
static void read_parities(const Job *job, const Block *block, int channel, int row, int column,
                          __m512 *to) {
    int vectors = block->ring_vectors;
    if (row < 0 || row >= job->height << job->doubled) {
        memset(to, 0, (size_t)ORDER * vectors * sizeof(__m512));
        return;
    }
    const float *next = job->x + channel * job->x_channel +
                        (int64_t)((row >> job->doubled) + 1) * job->width + (column >> job->doubled);
    for (int v = 0; v < vectors; v++) {
        __m512 f[ORDER];
        for (int k = 0; k < ORDER; k++) /* the next row meanwhile comes closer: it lies apart */
            _mm_prefetch(next + k * block->channels * job->x_channel + v * LANES, _MM_HINT_T1);
        for (int k = 0; k < ORDER; k++)
            f[k] = read_columns(job, k * block->channels + channel, row, column + v * LANES);
        exchange(f);
        for (int p = 0; p < ORDER; p++) to[p * vectors + v] = f[p];
    }
}

/* ---- combinations ---- */

static inline __m512i *place_of(const Block *block, int p, int a, int b, int odd, int channel) {
    int64_t pair = ((int64_t)block->slot[p][a][b] * block->channels + channel) / 2;
    return block->maps + ((p ^ odd) * block->room + pair) * TOGETHER;
}

/* Rows above, here and below of two channels => all their combinations. */
static void combine(const Block *block, int channel, __m512 *const rows[3], int vectors) {
    int64_t next = ORDER * block->room * TOGETHER, other = (int64_t)ORDER * block->ring_vectors;
    for (int p = 0; p < ORDER; p++) {
        const __m512 *up = rows[0] + p * block->ring_vectors;
        const __m512 *here = rows[1] + p * block->ring_vectors;
        const __m512 *down = rows[2] + p * block->ring_vectors;
        __m512i *to[3][3];
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++)
                to[a][b] = place_of(block, p, a, b, (a == 2) << 1 | (b == 2), channel);
        __m512 before[3][2];
        for (int v = 0; v <= vectors; v++) {
            __m512 now[3][2];
            for (int c = 0; c < 2; c++) {
                __m512 top = up[c * other + v], bottom = down[c * other + v];
                now[0][c] = here[c * other + v];
                now[1][c] = _mm512_add_ps(top, bottom);
                now[2][c] = _mm512_sub_ps(bottom, top);
            }
            if (v) {
                int64_t at = (v - 1) / TOGETHER * next + (v - 1) % TOGETHER;
                for (int a = 0; a < 3; a++) {
                    __m512 mid[2], sum[2], difference[2];
                    for (int c = 0; c < 2; c++) {
                        __m512 left = before[a][c], right = SHIFTED(now[a][c], left, 2);
                        mid[c] = SHIFTED(now[a][c], left, 1);
                        sum[c] = _mm512_add_ps(left, right);
                        difference[c] = _mm512_sub_ps(right, left);
                    }
                    to[a][0][at] = interleave(mid[0], mid[1]);
                    to[a][1][at] = interleave(sum[0], sum[1]);
                    to[a][2][at] = interleave(difference[0], difference[1]);
                }
            }
            for (int a = 0; a < 3; a++)
                for (int c = 0; c < 2; c++) before[a][c] = now[a][c];
        }
    }
}

/* Two rows of two channels => the combinations of the step down. */
static void combine_halves(const Block *block, int channel, __m512 *const rows[2], int vectors) {
    const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odds = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    int64_t next = ORDER * block->room * TOGETHER, other = (int64_t)ORDER * block->ring_vectors;
    for (int p = 0; p < ORDER; p++)
        for (int v = 0; v < vectors; v++) {
            int64_t at = v / TOGETHER * next + v % TOGETHER;
            __m512 found[2][2][2];
            for (int c = 0; c < 2; c++) {
                int64_t from = c * other + p * block->ring_vectors + 2 * v;
                for (int a = 0; a < 2; a++) {
                    __m512 x[2];
                    for (int i = 0; i < 2; i++) {
                        __m512 top = rows[0][from + i], bottom = rows[1][from + i];
                        x[i] = a ? _mm512_sub_ps(bottom, top) : _mm512_add_ps(top, bottom);
                    }
                    __m512 left = _mm512_permutex2var_ps(x[0], evens, x[1]);
                    __m512 right = _mm512_permutex2var_ps(x[0], odds, x[1]);
                    found[a][0][c] = _mm512_add_ps(left, right);
                    found[a][1][c] = _mm512_sub_ps(right, left);
                }
            }
            for (int a = 0; a < 2; a++)
                for (int b = 0; b < 2; b++)
                    place_of(block, p, a, b, a << 1 | b, channel)[at] =
                        interleave(found[a][b][0], found[a][b][1]);
        }
}

/* Two channels, as they are. */
static void pair(const Block *block, int channel, const __m512 *row, int vectors) {
    int64_t next = ORDER * block->room * TOGETHER, other = (int64_t)ORDER * block->ring_vectors;
    for (int p = 0; p < ORDER; p++)
        for (int v = 0; v < vectors; v++) {
            const __m512 *from = row + p * block->ring_vectors + v;
            place_of(block, p, 0, 0, 0, channel)[v / TOGETHER * next + v % TOGETHER] =
                interleave(from[0], from[other]);
        }
}

/* ---- products ---- */

/* to[channel][pixel] = the sum over pairs of weights[pair][channel] * maps[pair][pixel]. */
static inline __attribute__((always_inline)) void multiply(const __m512i *maps, const int32_t *weights,
                                                           int64_t pairs, float *to,
                                                           const int wide) {
    __m512 sums[OUT][TOGETHER];
#pragma GCC unroll 8
    for (int i = 0; i < OUT; i++) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
    for (int64_t k = 0; k < pairs; k++, maps += TOGETHER, weights += OUT) {
        __m512bh x0 = (__m512bh)maps[0], x1 = (__m512bh)maps[wide];
#pragma GCC unroll 8
        for (int i = 0; i < OUT; i++) {
            __m512bh w = (__m512bh)_mm512_set1_epi32(weights[i]);
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], x0, w);
            if (wide) sums[i][1] = _mm512_dpbf16_ps(sums[i][1], x1, w);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < OUT; i++) {
        _mm512_store_ps(to + i * GROUP, sums[i][0]);
        if (wide) _mm512_store_ps(to + i * GROUP + LANES, sums[i][1]);
    }
}

/* ---- the same in tiles ---- */

#if defined(EMULATED_TILES)

#define WITH_TILES
static _Thread_local struct { uint8_t rows[8], bytes[8]; } shapes;
static _Thread_local union { float numbers[16][LANES]; uint16_t halves[16][2 * LANES]; } tiles[8];

static int tiles_are_there(void) { return 1; }

static void configure(const uint8_t *from) {
    for (int i = 0; i < 8; i++) shapes.bytes[i] = from[16 + 2 * i], shapes.rows[i] = from[48 + i];
}

static void load_tile(int tile, const void *from, int64_t stride) {
    for (int i = 0; i < shapes.rows[tile]; i++)
        memcpy(tiles[tile].numbers[i], (const char *)from + i * stride, shapes.bytes[tile]);
}

static void store_tile(int tile, void *to, int64_t stride) {
    for (int i = 0; i < shapes.rows[tile]; i++)
        memcpy((char *)to + i * stride, tiles[tile].numbers[i], shapes.bytes[tile]);
}

static float widened(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

static void multiply_tile(int c, int a, int b) {
    for (int i = 0; i < shapes.rows[a]; i++)
        for (int k = 0; k < shapes.bytes[a] / 4; k++)
            for (int j = 0; j < shapes.bytes[b] / 4; j++)
                for (int half = 0; half < 2; half++)
                    tiles[c].numbers[i][j] += widened(tiles[a].halves[i][2 * k + half]) *
                                              widened(tiles[b].halves[k][2 * j + half]);
}

#define CONFIGURE(from) configure(from)
#define RELEASE()
#define ZERO(tile) memset(&tiles[tile], 0, sizeof tiles[tile])
#define LOAD(tile, from, stride) load_tile(tile, from, stride)
#define STORE(tile, to, stride) store_tile(tile, to, stride)
#define MULTIPLY(c, a, b) multiply_tile(c, a, b)

#elif defined(__linux__) && defined(__x86_64__) && (__clang_major__ >= 12 || __GNUC__ >= 11)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WITH_TILES __attribute__((target("amx-tile,amx-bf16"), noinline))
#define CONFIGURE(from) _tile_loadconfig(from)
#define RELEASE() _tile_release()
#define ZERO(tile) _tile_zero(tile)
#define LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define MULTIPLY(c, a, b) _tile_dpbf16ps(c, a, b)

/* Whether the processor has AMX and the system lets this process use it. */
static int tiles_are_there(void) {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; /* XGETBV */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low >> 17 & 3) != 3) return 0;
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0;
}

#else

#define NO_TILES
static int tiles_are_there(void) { return 0; }

#endif

/* Use tiles from now on, or do not; return whether they are used. */
int32_t use_tiles(int32_t wanted) { return are_tiles_used = wanted && tiles_are_there(); }

#ifndef NO_TILES

/* Tiles 0 to 3 are sums of 8 channels by 16 pixels, 4 and 5 weights of 8 channels by 16 pairs, 6 and 7
   16 pairs by 16 pixels. */
WITH_TILES static void start_tiles(void) {
    _Alignas(64) uint8_t shape[64] = {1};
    for (int i = 0; i < 8; i++) {
        shape[16 + 2 * i] = 64;
        shape[48 + i] = i < 6 ? OUT : TILE_PAIRS;
    }
    __asm__ volatile("" ::"r"(shape) : "memory"); /* GCC 12 knows of 8 bytes that are read */
    CONFIGURE(shape);
}

WITH_TILES static void end_tiles(void) { RELEASE(); }

/* As `multiply`, for all channels of a parity, two groups of them at once. `room` is whole tiles. */
WITH_TILES static void multiply_tiles(const __m512i *maps, const int32_t *weights, int64_t room,
                                      int out, float *to) {
    const int64_t row = TOGETHER * sizeof(__m512i), line = GROUP * sizeof(float), each = 64;
    __asm__ volatile("" ::: "memory"); /* what is loaded has been written */
    for (int c = 0; c < out; c += 2 * OUT, weights += 2 * OUT * room, to += 2 * OUT * GROUP) {
        int are_two = c + OUT < out;
        const int32_t *others = weights + (are_two ? OUT * room : 0);
        ZERO(0);
        ZERO(1);
        ZERO(2);
        ZERO(3);
        for (int64_t k = 0; k < room; k += TILE_PAIRS) {
            LOAD(6, maps + k * TOGETHER, row);
            LOAD(7, maps + k * TOGETHER + 1, row);
            LOAD(4, weights + k * OUT, each);
            MULTIPLY(0, 4, 6);
            MULTIPLY(1, 4, 7);
            LOAD(5, others + k * OUT, each);
            MULTIPLY(2, 5, 6);
            MULTIPLY(3, 5, 7);
        }
        STORE(0, to, line);
        STORE(1, to + LANES, line);
        if (are_two) {
            STORE(2, to + OUT * GROUP, line);
            STORE(3, to + OUT * GROUP + LANES, line);
        }
    }
    __asm__ volatile("" ::: "memory");
}

/* Zeros where the last pairs of a tile are none. */
static void fill_up(const Block *block) {
    for (int64_t i = 0; i < (int64_t)block->columns / GROUP * ORDER; i++)
        memset(block->maps + (i * block->room + block->pairs) * TOGETHER, 0,
               (size_t)(block->room - block->pairs) * TOGETHER * sizeof(__m512i));
}

#else

static void start_tiles(void) {}
static void end_tiles(void) {}
static void fill_up(const Block *block) { (void)block; }
static void multiply_tiles(const __m512i *maps, const int32_t *weights, int64_t room, int out,
                           float *to) {
    (void)maps, (void)weights, (void)room, (void)out, (void)to;
}

#endif

/* Parities of a row's results => blocks, with bias and residual, where they belong: a channel after
   the other, since each lies in pages of its own. */
static void put(const Job *job, const Block *block, int row, int left, int columns, int width) {
    int out = job->channels_out / ORDER;
    int64_t at = (int64_t)row * width + left, parity = (int64_t)out * GROUP;
    for (int c = 0; c < out; c++) {
        __m512 bias = _mm512_set1_ps(job->bias[c]);
        for (int i = 0; i < columns; i += LANES) {
            const float *sums = block->sums + i / GROUP * ORDER * parity + c * GROUP + i % GROUP;
            __mmask16 mask = first_lanes(columns - i);
            __m512 f[ORDER];
            for (int q = 0; q < ORDER; q++) f[q] = _mm512_load_ps(sums + q * parity);
            exchange(f);
            for (int k = 0; k < ORDER; k++) {
                int64_t channel = k * out + c;
                __m512 y = _mm512_add_ps(f[k], bias);
                if (job->residual) {
                    const float *more = job->residual + channel * job->residual_channel + at + i;
                    y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, more));
                    _mm_prefetch(more + width, _MM_HINT_T1);
                }
                __builtin_prefetch(job->out + channel * job->out_channel + at + i + width, 1);
                _mm512_mask_storeu_ps(job->out + channel * job->out_channel + at + i, mask, y);
            }
        }
    }
}

/* ---- convolutions ---- */

/* All sums of a row, from its combinations. */
static void sum(const Job *job, const Block *block, int columns, int tiled) {
    int out = job->channels_out / ORDER;
    int64_t pairs = tiled ? block->room : block->pairs; /* that the weights have */
    float *to = block->sums;
    if (tiled) start_tiles();
    for (int at = 0; at < columns; at += GROUP) {
        const __m512i *maps = block->maps + at / LANES * ORDER * block->room;
        const int32_t *weights = (const int32_t *)job->weights;
        for (int q = 0; q < ORDER; q++, maps += block->room * TOGETHER) {
            for (int c = 0; c < out && !tiled; c += OUT)
                if (at + LANES < columns)
                    multiply(maps, weights + c * pairs, pairs, to + c * GROUP, 1);
                else
                    multiply(maps, weights + c * pairs, pairs, to + c * GROUP, 0);
            if (tiled) multiply_tiles(maps, weights, pairs, out, to);
            weights += out * pairs;
            to += out * GROUP;
        }
    }
    if (tiled) end_tiles();
}

static inline __attribute__((always_inline)) int64_t convolve_as(const Job *job, const Kind kind) {
    Block block = block_of(job, kind);
    if (block.size > job->memory_size) return block.size;
    int width = (job->width << job->doubled) / kind.stride;
    int border = kind.taps == 3, tiled = are_tiles_used;
    if (tiled) fill_up(&block);
    int64_t channel_size = (int64_t)ORDER * block.ring_vectors, row_size = block.channels * channel_size;
    for (int left = 0; left < width; left += block.columns) {
        int columns = least(block.columns, width - left), vectors = (columns + LANES - 1) / LANES;
        for (int r = 0; r < job->rows; r++) {
            int first = kind.stride * (job->start + r) - border; /* row of x, of those needed */
            int known = r && border ? 2 : 0;                     /* of them, in the ring */
            for (int c = 0; c < block.channels; c += 2) {
                __m512 *rows[3];
                for (int y = 0; y < kind.taps; y++) {
                    rows[y] = block.ring + (kind.stride * r + y) % kind.taps * row_size + c * channel_size;
                    for (int i = 0; i < 2 && y >= known; i++)
                        read_parities(job, &block, c + i, first + y, kind.stride * left - border,
                                      rows[y] + i * channel_size);
                }
                if (kind.taps == 3)
                    combine(&block, c, rows, vectors);
                else if (kind.taps == 2)
                    combine_halves(&block, c, rows, vectors);
                else
                    pair(&block, c, rows[0], vectors);
            }
            sum(job, &block, columns, tiled);
            put(job, &block, r, left, columns, width);
        }
    }
    return 0;
}

/* Each returns how many numbers of memory it takes, and does nothing where that is more than there
   are. `convolve` keeps the size of (doubled) x, `halve` is the step down, `mix` is 1x1. */
int64_t convolve(const Job *job) { return convolve_as(job, SAME); }
int64_t halve(const Job *job) { return convolve_as(job, HALVE); }
int64_t mix(const Job *job) { return convolve_as(job, MIX); }

#endif
