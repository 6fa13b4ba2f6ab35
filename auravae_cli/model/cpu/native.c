/* The CPU's kernels: what a strip of rows goes through, in one thread. Built and called by native.py.

   Convolutions of 3x3 follow Winograd's method (Lavin and Gray, 2015), F(6, 3) down and F(4, 3)
   across: 48 products for 24 results in place of 216. Rows are read once and, where a norm and SiLU
   come before, pass through them on the way; bias and residual are added where results are written.
   All vectors run along a row, so that maps stay as torch has them, [channels, rows, columns]. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define CHANNELS_OUT 8 /* at once, in registers, times VECTORS */
#elif defined(__AVX__)
#define LANES 8
#define CHANNELS_OUT 4
#else
#define LANES 4
#define CHANNELS_OUT 8
#endif
#define VECTORS 2
#define GROUP (LANES * VECTORS) /* tiles that are multiplied together */
#define DOWN 6                  /* results of a tile, and what it is made of */
#define ACROSS 4
#define TALL (DOWN + 2)
#define WIDE (ACROSS + 2)
#define POINTS (TALL * WIDE)
#define TAPS 9             /* of a 3x3 kernel */
#define VANISHING 2        /* the point, down and across, that is zero where all is doubled */
#define TILES_OF_TAPS 64   /* at once at least, where weights are made for them */
#define FEATURES_BYTES 786432 /* of transformed tiles at once: most of a usual second-level cache */

typedef float vector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t integers __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

static inline vector all(float x) { return x - (vector){0}; }
static inline vector load(const float *p) { return *(const vector *)p; }
static inline void store(float *p, vector x) { *(vector *)p = x; }

static inline vector choose(integers mask, vector x, vector y) {
    return (vector)((mask & (integers)x) | (~mask & (integers)y));
}

/* ---- shuffles: every second or fourth number of a row ---- */

#if LANES == 16
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODDS 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define FIRSTS 0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29
#define THIRDS 2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31
#define LOW_HALVES 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH_HALVES 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define LOW_ZIP 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_ZIP 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define LOW_PAIRS 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23
#define HIGH_PAIRS 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31
#elif LANES == 8
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14
#define ODDS 1, 3, 5, 7, 9, 11, 13, 15
#define FIRSTS 0, 4, 8, 12, 1, 5, 9, 13
#define THIRDS 2, 6, 10, 14, 3, 7, 11, 15
#define LOW_HALVES 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_HALVES 4, 5, 6, 7, 12, 13, 14, 15
#define LOW_ZIP 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_ZIP 4, 12, 5, 13, 6, 14, 7, 15
#define LOW_PAIRS 0, 1, 8, 9, 2, 3, 10, 11
#define HIGH_PAIRS 4, 5, 12, 13, 6, 7, 14, 15
#else
#define EVENS 0, 2, 4, 6
#define ODDS 1, 3, 5, 7
#define FIRSTS 0, 4, 1, 5
#define THIRDS 2, 6, 3, 7
#define LOW_HALVES 0, 1, 4, 5
#define HIGH_HALVES 2, 3, 6, 7
#define LOW_ZIP 0, 4, 1, 5
#define HIGH_ZIP 2, 6, 3, 7
#define LOW_PAIRS 0, 1, 4, 5
#define HIGH_PAIRS 2, 3, 6, 7
#endif

#if defined(__clang__) || __GNUC__ >= 12
#define PICK(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define PICK(x, y, ...) __builtin_shuffle(x, y, (integers){__VA_ARGS__})
#endif

/* The next 4 * LANES numbers => those at 0, 4, 8 ..., at 1, 5, 9 ..., and so on. */
static inline void take_apart(vector to[4], const float *p) {
    vector a = load(p), b = load(p + LANES), c = load(p + 2 * LANES), d = load(p + 3 * LANES);
    vector ab = PICK(a, b, FIRSTS), cd = PICK(c, d, FIRSTS);
    to[0] = PICK(ab, cd, LOW_HALVES);
    to[1] = PICK(ab, cd, HIGH_HALVES);
    ab = PICK(a, b, THIRDS);
    cd = PICK(c, d, THIRDS);
    to[2] = PICK(ab, cd, LOW_HALVES);
    to[3] = PICK(ab, cd, HIGH_HALVES);
}

static inline void put_together(float *p, vector a, vector b, vector c, vector d) {
    vector ab = PICK(a, b, LOW_ZIP), cd = PICK(c, d, LOW_ZIP);
    store(p, PICK(ab, cd, LOW_PAIRS));
    store(p + LANES, PICK(ab, cd, HIGH_PAIRS));
    ab = PICK(a, b, HIGH_ZIP);
    cd = PICK(c, d, HIGH_ZIP);
    store(p + 2 * LANES, PICK(ab, cd, LOW_PAIRS));
    store(p + 3 * LANES, PICK(ab, cd, HIGH_PAIRS));
}

/* ---- what is asked for ---- */

typedef struct {
    const float *x;             /* [channels, height, width]: rows and columns lie together */
    const float *weights;       /* [groups, points or taps, depth, CHANNELS_OUT], see native.py */
    const float *bias;          /* [channels_out] */
    const float *scale, *shift; /* [channels] of a norm, which SiLU follows; or null */
    const float *residual;      /* like out, to be added; or null. May be out itself */
    float *out;                 /* [channels_out, rows, columns] */
    float *memory;              /* zeros at first, and then what the last call left */
    int64_t memory_size;        /* in numbers */
    int64_t x_channel, residual_channel, out_channel; /* from one channel to the next */
    int32_t channels, height, width, channels_out;
    int32_t start, rows; /* the first row of the result, counted from where x begins, and how many */
    int32_t doubled;     /* whether every pixel of x stands for four */
    int32_t are_taps;    /* whether 3x3 kernels are made into points where they are used */
} Job;

int32_t channels_out_at_once(void) { return CHANNELS_OUT; }
int32_t lanes(void) { return LANES; }

/* ---- reading ---- */

/* e^z, as in Cephes; beyond +-88 that of the end. */
static inline vector exponential(vector z) {
    z = choose(z > 88.0f, all(88.0f), z);
    z = choose(z < -87.0f, all(-87.0f), z);
    vector n = z * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to a whole number */
    integers exponent = (integers)n << 23;
    n -= 12582912.0f;
    z = z - n * 0.693359375f + n * 2.12194440e-4f;
    vector y = all(1.9875691500e-4f);
    y = y * z + 1.3981999507e-3f;
    y = y * z + 8.3334519073e-3f;
    y = y * z + 4.1665795894e-2f;
    y = y * z + 1.6666665459e-1f;
    y = y * z + 5.0000001201e-1f;
    y = y * z * z + z + 1.0f;
    return (vector)((integers)y + exponent);
}

/* SiLU(x * scale + shift). */
static inline vector activate(vector x, vector scale, vector shift) {
    x = x * scale + shift;
    return x / (1.0f + exponential(-x));
}

static void activate_row(float *to, const float *from, int count, float scale, float shift) {
    vector a = all(scale), b = all(shift);
    int i = 0;
    for (; i + LANES <= count; i += LANES) store(to + i, activate(load(from + i), a, b));
    if (i < count) {
        float rest[LANES] = {0};
        memcpy(rest, from + i, (size_t)(count - i) * sizeof(float));
        store(rest, activate(load(rest), a, b));
        memcpy(to + i, rest, (size_t)(count - i) * sizeof(float));
    }
}

/* ``count`` columns, from ``left`` on, of a row of a channel; zeros where there are none. */
static void read_row(float *to, const Job *job, int channel, int row, int left, int count) {
    int width = job->width << job->doubled, height = job->height << job->doubled;
    if (row < 0 || row >= height) {
        memset(to, 0, (size_t)count * sizeof(float));
        return;
    }
    const float *from = job->x + channel * job->x_channel
                        + (size_t)(row >> job->doubled) * job->width;
    int first = left < 0 ? -left : 0;
    int end = left + count > width ? width - left : count;
    for (int i = 0; i < first; i++) to[i] = 0;
    for (int i = end; i < count; i++) to[i] = 0;
    if (job->doubled)
        for (int i = first; i < end; i++) to[i] = from[(left + i) >> 1];
    else if (job->scale)
        activate_row(to + first, from + left + first, end - first, job->scale[channel],
                     job->shift[channel]);
    else
        memcpy(to + first, from + left + first, (size_t)(end - first) * sizeof(float));
}

/* ---- Winograd's transforms, by interpolation at 0, 1, -1, 2, -2, (1/2, -1/2,) infinity ---- */

static inline void points_of_8(vector to[8], const vector x[8]) {
    vector even = x[2] + x[6] - 4.25f * x[4], odd = x[1] + x[5] - 4.25f * x[3];
    to[0] = x[0] - x[6] + 5.25f * (x[4] - x[2]);
    to[1] = even + odd;
    to[2] = even - odd;
    even = x[6] + 0.25f * x[2] - 1.25f * x[4];
    odd = 0.5f * x[1] - 2.5f * x[3] + 2.0f * x[5];
    to[3] = even + odd;
    to[4] = even - odd;
    even = x[6] + 4.0f * x[2] - 5.0f * x[4];
    odd = 2.0f * x[1] - 2.5f * x[3] + 0.5f * x[5];
    to[5] = even + odd;
    to[6] = even - odd;
    to[7] = x[7] - x[1] + 5.25f * (x[3] - x[5]);
}

static inline void points_of_6(vector to[6], const vector x[6]) {
    vector even = x[4] - 4.0f * x[2], odd = x[3] - 4.0f * x[1];
    to[0] = 4.0f * x[0] - 5.0f * x[2] + x[4];
    to[1] = even + odd;
    to[2] = even - odd;
    even = x[4] - x[2];
    odd = 2.0f * (x[3] - x[1]);
    to[3] = even + odd;
    to[4] = even - odd;
    to[5] = 4.0f * x[1] - 5.0f * x[3] + x[5];
}

static inline void results_of_8(vector to[6], const vector m[8]) {
    vector a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    vector e = m[5] + m[6], f = m[5] - m[6];
    to[0] = m[0] + a + c + e;
    to[1] = b + 2.0f * d + 0.5f * f;
    to[2] = a + 4.0f * c + 0.25f * e;
    to[3] = b + 8.0f * d + 0.125f * f;
    to[4] = a + 16.0f * c + 0.0625f * e;
    to[5] = m[7] + b + 32.0f * d + 0.03125f * f;
}

static inline void results_of_6(vector to[4], const vector m[6]) {
    vector a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    to[0] = m[0] + a + c;
    to[1] = b + 2.0f * d;
    to[2] = a + 4.0f * c;
    to[3] = m[5] + b + 8.0f * d;
}

/* Three taps down or across => what they are at the points. */
static inline void kernel_of_8(vector to[TALL], vector a, vector b, vector c) {
    vector sides = a + c, wide = a + 4.0f * c, narrow = a + 0.25f * c;
    to[0] = a;
    to[1] = (-2.0f / 9) * (sides + b);
    to[2] = (-2.0f / 9) * (sides - b);
    to[3] = (1.0f / 90) * (wide + 2.0f * b);
    to[4] = (1.0f / 90) * (wide - 2.0f * b);
    to[5] = (32.0f / 45) * (narrow + 0.5f * b);
    to[6] = (32.0f / 45) * (narrow - 0.5f * b);
    to[7] = c;
}

static inline void kernel_of_6(vector to[WIDE], vector a, vector b, vector c) {
    vector sides = a + c, wide = a + 4.0f * c;
    to[0] = 0.25f * a;
    to[1] = (-1.0f / 6) * (sides + b);
    to[2] = (-1.0f / 6) * (sides - b);
    to[3] = (1.0f / 24) * (wide + 2.0f * b);
    to[4] = (1.0f / 24) * (wide - 2.0f * b);
    to[5] = c;
}

/* ``groups`` of kernels [TAPS, size] => [POINTS, size]. */
void at_points(float *to, const float *from, int64_t groups, int64_t size) {
    for (; groups--; to += POINTS * size, from += TAPS * size)
        for (int64_t i = 0; i < size; i += LANES) {
            size_t bytes = sizeof(float) * (size_t)(size - i < LANES ? size - i : LANES);
            vector taps[TAPS] = {{0}}, down[3][TALL], across[WIDE];
            for (int x = 0; x < TAPS; x++) memcpy(taps + x, from + x * size + i, bytes);
            for (int x = 0; x < 3; x++) kernel_of_8(down[x], taps[x], taps[3 + x], taps[6 + x]);
            for (int y = 0; y < TALL; y++) {
                kernel_of_6(across, down[0][y], down[1][y], down[2][y]);
                for (int x = 0; x < WIDE; x++)
                    memcpy(to + (WIDE * y + x) * size + i, across + x, bytes);
            }
        }
}

/* Eight rows side by side => ``tiles`` tiles of every point, ``stride`` numbers apart. */
static void transform(float *to, size_t stride, float *const rows[TALL], int tiles, float *spread,
                      int length) {
    for (int i = 0; i < ACROSS * tiles + 2; i += LANES) {
        vector x[TALL], points[TALL];
        for (int y = 0; y < TALL; y++) x[y] = load(rows[y] + i);
        points_of_8(points, x);
        for (int y = 0; y < TALL; y++) store(spread + y * length + i, points[y]);
    }
    for (int y = 0; y < TALL; y++)
        for (int t = 0; t < tiles; t += LANES) {
            const float *from = spread + y * length + ACROSS * t;
            vector x[8], points[WIDE];
            take_apart(x, from);
            take_apart(x + 4, from + 4);
            points_of_6(points, x);
            for (int i = 0; i < WIDE; i++) store(to + (WIDE * y + i) * stride + t, points[i]);
        }
}

/* ---- products ---- */

/* to[c * to_stride + t] = the sum over k of weights[k, c] * features[k * stride + t], for as many
   vectors of tiles. */
static inline __attribute__((always_inline)) void
multiply_vectors(float *to, size_t to_stride, const float *weights, const float *features,
                 size_t stride, int depth, const int vectors) {
    vector sums[CHANNELS_OUT][VECTORS] = {{{0}}};
    for (int k = 0; k < depth; k++) {
        vector x[VECTORS];
#pragma GCC unroll 2
        for (int i = 0; i < vectors; i++) x[i] = load(features + k * stride + i * LANES);
#pragma GCC unroll 8
        for (int c = 0; c < CHANNELS_OUT; c++)
#pragma GCC unroll 2
            for (int i = 0; i < vectors; i++) sums[c][i] += weights[k * CHANNELS_OUT + c] * x[i];
    }
#pragma GCC unroll 8
    for (int c = 0; c < CHANNELS_OUT; c++)
#pragma GCC unroll 2
        for (int i = 0; i < vectors; i++) store(to + c * to_stride + i * LANES, sums[c][i]);
}

/* The same for ``tiles`` tiles, and up to the end of their last vector. */
static void multiply(float *to, size_t to_stride, const float *weights, const float *features,
                     size_t stride, int depth, int tiles) {
    int t = 0;
    for (; t + LANES < tiles; t += GROUP)
        multiply_vectors(to + t, to_stride, weights, features + t, stride, depth, VECTORS);
    if (t < tiles) multiply_vectors(to + t, to_stride, weights, features + t, stride, depth, 1);
}

/* ---- results ---- */

/* A row of results of a channel, with what is to be added, to its place. */
static void write_row(const Job *job, int channel, int row, int left, int count, int columns,
                      const float *from) {
    float *to = job->out + channel * job->out_channel + (size_t)row * columns + left;
    float bias = job->bias[channel];
    if (!job->residual) {
        for (int i = 0; i < count; i++) to[i] = from[i] + bias;
        return;
    }
    const float *more = job->residual + channel * job->residual_channel
                        + (size_t)row * columns + left;
    for (int i = 0; i < count; i++) to[i] = from[i] + bias + more[i];
}

/* The products of ``tiles`` tiles side by side => six rows. */
static void gather(float *to, int length, const float *products, size_t stride, int tiles) {
    for (int t = 0; t < tiles; t += LANES) {
        vector part[DOWN][WIDE];
        for (int x = 0; x < WIDE; x++) {
            vector m[TALL], results[DOWN];
            for (int y = 0; y < TALL; y++) m[y] = load(products + (WIDE * y + x) * stride + t);
            results_of_8(results, m);
            for (int y = 0; y < DOWN; y++) part[y][x] = results[y];
        }
        for (int y = 0; y < DOWN; y++) {
            vector results[ACROSS];
            results_of_6(results, part[y]);
            put_together(to + y * length + ACROSS * t, results[0], results[1], results[2],
                         results[3]);
        }
    }
}

/* ---- tiles that are computed together ---- */

static int least(int a, int b) { return a < b ? a : b; }
static int up_to(int x, int unit) { return (x + unit - 1) / unit * unit; }

typedef struct {
    int across, down; /* how many tiles, at most */
    int length;       /* of a row in ``scratch`` */
    size_t stride;    /* from one channel's tiles to the next's, in ``features`` and ``products`` */
    float *features, *products, *scratch;
    size_t size; /* of all three */
} Block;

/* ``depth`` numbers make a result of each of ``points``; a tile stands for ``columns`` x ``rows`` of
   the map, and ``scratch_rows`` rows of it lie ready. */
static Block block_of(const Job *job, int depth, int points, int columns, int rows,
                      int tile_columns, int tile_rows, int scratch_rows) {
    Block block;
    int most = FEATURES_BYTES / (4 * points * depth) / GROUP * GROUP;
    int few = job->are_taps ? TILES_OF_TAPS : GROUP;
    most = most < few ? few : most > 8 * GROUP ? 8 * GROUP : most;
    block.across = least(most, (columns + tile_columns - 1) / tile_columns);
    block.down = least(most / block.across, (rows + tile_rows - 1) / tile_rows);
    block.length = 4 * up_to(block.across, LANES) + 2 * LANES;
    /* Vectors write beyond the last tile of a row, which the next row mends. */
    block.stride = up_to(block.across * (block.down - 1) + up_to(block.across, LANES), GROUP);
    block.features = job->memory;
    block.products = block.features + (size_t)points * depth * block.stride;
    block.scratch = block.products + (size_t)points * CHANNELS_OUT * block.stride;
    block.size = (size_t)(block.scratch - job->memory) + (size_t)scratch_rows * block.length + GROUP;
    return block;
}

static void read_tiles(const Job *job, const Block *block, int top, int down, int left,
                       int across) {
    float *spread = block->scratch + TALL * block->length;
    for (int channel = 0; channel < job->channels; channel++)
        for (int d = 0; d < down; d++) {
            float *rows[TALL];
            for (int y = 0; y < TALL; y++) {
                rows[y] = block->scratch + (DOWN * d + y) % TALL * block->length;
                if (d == 0 || y >= 2) /* the others are those that the tile above ended with */
                    read_row(rows[y], job, channel, job->start + top + DOWN * d + y - 1, left - 1,
                             ACROSS * across + 2);
            }
            transform(block->features + channel * block->stride + d * across,
                      job->channels * block->stride, rows, across, spread, block->length);
        }
}

static void write_tiles(const Job *job, const Block *block, int group, int top, int down, int left,
                        int across) {
    int columns = job->width << job->doubled, count = least(ACROSS * across, columns - left);
    int channels = least(CHANNELS_OUT, job->channels_out - group * CHANNELS_OUT);
    for (int c = 0; c < channels; c++)
        for (int d = 0; d < down; d++) {
            gather(block->scratch, block->length,
                   block->products + (size_t)c * POINTS * block->stride + d * across, block->stride,
                   across);
            for (int y = 0; y < least(DOWN, job->rows - top - DOWN * d); y++)
                write_row(job, group * CHANNELS_OUT + c, top + DOWN * d + y, left, count, columns,
                          block->scratch + y * block->length);
        }
}

/* A 3x3 convolution that keeps the size of (doubled) ``x``. Returns how many numbers of memory it
   takes, and does nothing where that is more than there are. */
int64_t convolve(const Job *job) {
    int columns = job->width << job->doubled;
    Block block = block_of(job, job->channels, POINTS, columns, job->rows, ACROSS, DOWN, 2 * TALL);
    size_t depth = (size_t)job->channels * CHANNELS_OUT, stride = block.stride;
    float *kernels = job->memory + block.size;
    if (job->are_taps) block.size += POINTS * depth;
    if ((int64_t)block.size > job->memory_size) return (int64_t)block.size;
    int skips = job->doubled && job->start % 2 == 0;
    for (int top = 0; top < job->rows; top += DOWN * block.down)
        for (int left = 0; left < columns; left += ACROSS * block.across) {
            int down = least(block.down, (job->rows - top + DOWN - 1) / DOWN);
            int across = least(block.across, (columns - left + ACROSS - 1) / ACROSS);
            read_tiles(job, &block, top, down, left, across);
            for (int group = 0; group * CHANNELS_OUT < job->channels_out; group++) {
                const float *weights = job->weights + group * (job->are_taps ? TAPS : POINTS) * depth;
                if (job->are_taps) {
                    at_points(kernels, weights, 1, (int64_t)depth);
                    weights = kernels;
                }
                for (int p = 0; p < POINTS; p++) {
                    float *to = block.products + p * stride;
                    if (!skips || (p / WIDE != VANISHING && p % WIDE != VANISHING))
                        multiply(to, POINTS * stride, weights + p * depth,
                                 block.features + p * job->channels * stride, stride,
                                 job->channels, down * across);
                    else
                        for (int c = 0; c < CHANNELS_OUT; c++)
                            memset(to + c * POINTS * stride, 0, stride * sizeof(float));
                }
                write_tiles(job, &block, group, top, down, left, across);
            }
        }
    return 0;
}

/* ---- convolutions by their definition ---- */

/* A row of every channel and, for 3x3, of each place in the kernel, as ``multiply`` reads them. */
static void read_places(const Job *job, const Block *block, int stride, int top, int down, int left,
                        int across) {
    int kernel = stride == 2 ? 3 : 1;
    for (int k = 0; k < kernel * job->channels; k++)
        for (int d = 0; d < down; d++) {
            float *to = block->features + kernel * k * block->stride + d * across;
            int row = stride * (job->start + top + d) + k % kernel;
            if (stride == 1) {
                read_row(to, job, k, row, left, across);
                continue;
            }
            const float *from = block->scratch;
            read_row(block->scratch, job, k / 3, row, 2 * left, 2 * across + 1);
            for (int t = 0; t < across; t += LANES) {
                vector a = load(from + 2 * t), b = load(from + 2 * t + LANES);
                vector c = load(from + 2 * t + 2), e = load(from + 2 * t + 2 + LANES);
                store(to + t, PICK(a, b, EVENS));
                store(to + block->stride + t, PICK(a, b, ODDS));
                store(to + 2 * block->stride + t, PICK(c, e, EVENS));
            }
        }
}

static int64_t direct(const Job *job, int stride) {
    int columns = job->width / stride, depth = (stride == 2 ? 9 : 1) * job->channels;
    Block block = block_of(job, depth, 1, columns, job->rows, 1, 1, 1);
    if ((int64_t)block.size > job->memory_size) return (int64_t)block.size;
    for (int top = 0; top < job->rows; top += block.down)
        for (int left = 0; left < columns; left += block.across) {
            int down = least(block.down, job->rows - top);
            int across = least(block.across, columns - left);
            read_places(job, &block, stride, top, down, left, across);
            for (int channel = 0; channel < job->channels_out; channel += CHANNELS_OUT) {
                multiply(block.products, block.stride, job->weights + channel * depth,
                         block.features, block.stride, depth, down * across);
                for (int c = 0; c < least(CHANNELS_OUT, job->channels_out - channel); c++)
                    for (int d = 0; d < down; d++)
                        write_row(job, channel + c, top + d, left, across, columns,
                                  block.products + c * block.stride + d * across);
            }
        }
    return 0;
}

/* The step down: a border of zeros on the right and the bottom, then 3x3 with stride 2; ``start`` and
   ``rows`` are those of the result. Returns what ``convolve`` does. */
int64_t halve(const Job *job) { return direct(job, 2); }

/* A 1x1 convolution. Returns what ``convolve`` does. */
int64_t mix(const Job *job) { return direct(job, 1); }

/* ---- statistics ---- */

static float sum_of(vector x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

/* The sum of ``count`` numbers, or of the squares of what they differ from ``mean`` by. */
static inline float total(const float *x, size_t count, float mean, int squares) {
    vector sums[4] = {{0}};
    size_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            vector y = load(x + i + j * LANES) - mean;
            if (squares) y = y * y;
            sums[j] = sums[j] + y;
        }
    float rest = 0;
    for (; i < count; i++) rest += squares ? (x[i] - mean) * (x[i] - mean) : x[i] - mean;
    return sum_of(sums[0] + sums[1] + sums[2] + sums[3]) + rest;
}

/* Of each channel of ``x`` and each block of ``count`` numbers that follow one another, the last of
   which may have fewer: the mean, and the root of the sum of squares about it. */
void measure(const float *x, int64_t channel, int32_t channels, int64_t numbers, int64_t count,
             float *means, float *spreads, int64_t out_channel) {
    for (int32_t c = 0; c < channels; c++)
        for (int64_t i = 0; i * count < numbers; i++) {
            const float *from = x + c * channel + i * count;
            size_t size = (size_t)(numbers - i * count < count ? numbers - i * count : count);
            float mean = total(from, size, 0, 0) / (float)size;
            means[c * out_channel + i] = mean;
            spreads[c * out_channel + i] = sqrtf(total(from, size, mean, 1));
        }
}

/* ---- attention ---- */

#define HEAD 64     /* channels of a head */
#define KEYS 256    /* of a block */
#define QUERIES 64  /* at once */
#define SCALE 0.125f /* of scores: 1 / sqrt(HEAD) */

/* Of all queries: the largest score, the sum of what it gave, the weighted sum of the values; of a
   block: its keys and its values as ``multiply`` reads weights, and the queries' scores. */
typedef struct {
    float *queries, *largest, *sums, *found, *keys, *values, *scores, *products, *end;
} Memory;

static Memory parts_of(float *memory, size_t number) {
    Memory m;
    m.queries = memory;
    m.found = m.queries + HEAD * number;
    m.largest = m.found + HEAD * number;
    m.sums = m.largest + number;
    m.keys = m.sums + number;
    m.values = m.keys + HEAD * KEYS;
    m.scores = m.values + HEAD * KEYS;
    m.products = m.scores + KEYS * QUERIES;
    m.end = m.products + CHANNELS_OUT * QUERIES;
    return m;
}

static size_t in_whole(int64_t number) { return ((size_t)number + QUERIES - 1) / QUERIES * QUERIES; }

/* The numbers of memory that ``attend`` takes. */
int64_t attention_memory(int64_t number) { return parts_of(0, in_whole(number)).end - (float *)0; }

/* ``count`` keys and values; beyond them zeros. */
static void pack(const Memory *m, const float *keys, const float *values, int64_t channel,
                 int64_t count) {
    for (int64_t c = 0; c < HEAD; c++)
        for (int64_t k = 0; k < KEYS; k++) {
            float key = k < count ? SCALE * keys[c * channel + k] : 0;
            m->keys[(k / CHANNELS_OUT * HEAD + c) * CHANNELS_OUT + k % CHANNELS_OUT] = key;
            float value = k < count ? values[c * channel + k] : 0;
            m->values[(c / CHANNELS_OUT * KEYS + k) * CHANNELS_OUT + c % CHANNELS_OUT] = value;
        }
}

/* Scores of ``count`` keys => weights. Scales what has been found before where a larger score is. */
static void weigh(const Memory *m, size_t query, size_t number, int64_t count) {
    for (size_t i = 0; i < QUERIES; i += LANES) {
        vector before = load(m->largest + query + i), largest = before, sum = {0};
        for (int64_t k = 0; k < count; k++) {
            vector score = load(m->scores + k * QUERIES + i);
            largest = choose(score > largest, score, largest);
        }
        vector scale = exponential(before - largest);
        for (int64_t k = 0; k < count; k++) {
            vector weight = exponential(load(m->scores + k * QUERIES + i) - largest);
            store(m->scores + k * QUERIES + i, weight);
            sum += weight;
        }
        store(m->sums + query + i, load(m->sums + query + i) * scale + sum);
        store(m->largest + query + i, largest);
        for (size_t c = 0; c < HEAD; c++) {
            float *place = m->found + c * number + query + i;
            store(place, load(place) * scale);
        }
    }
}

/* out = softmax of the queries' products with the keys, over all keys, times the values, of one
   head: each [HEAD, cells], with its own step from one channel to the next. Keys are gone through in
   blocks, so that memory does not depend on how many there are; no query depends on others. */
void attend(const float *queries, int64_t query_channel, const float *keys, const float *values,
            int64_t key_channel, float *out, int64_t out_channel, int64_t number, int64_t cells,
            float *memory) {
    size_t whole = in_whole(number);
    Memory m = parts_of(memory, whole);
    memset(m.queries, 0, 2 * HEAD * whole * sizeof(float)); /* and what is found */
    for (size_t c = 0; c < HEAD; c++)
        memcpy(m.queries + c * whole, queries + c * query_channel, (size_t)number * sizeof(float));
    for (size_t i = 0; i < whole; i++) m.largest[i] = -3e38f, m.sums[i] = 0;
    for (int64_t first = 0; first < cells; first += KEYS) {
        int64_t count = cells - first < KEYS ? cells - first : KEYS;
        pack(&m, keys + first, values + first, key_channel, count);
        for (size_t query = 0; query < whole; query += QUERIES) {
            for (int64_t k = 0; k < count; k += CHANNELS_OUT)
                multiply(m.scores + k * QUERIES, QUERIES, m.keys + k * HEAD, m.queries + query, whole,
                         HEAD, QUERIES);
            weigh(&m, query, whole, count);
            for (size_t c = 0; c < HEAD; c += CHANNELS_OUT) {
                multiply(m.products, QUERIES, m.values + c * KEYS, m.scores, QUERIES, (int)count,
                         QUERIES);
                for (size_t i = 0; i < CHANNELS_OUT; i++)
                    for (size_t q = 0; q < QUERIES; q += LANES) {
                        float *place = m.found + (c + i) * whole + query + q;
                        store(place, load(place) + load(m.products + i * QUERIES + q));
                    }
            }
        }
    }
    for (size_t c = 0; c < HEAD; c++)
        for (int64_t i = 0; i < number; i++)
            out[c * out_channel + i] = m.found[c * whole + i] / m.sums[i];
}
