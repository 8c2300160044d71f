/* A whole encoding or decoding of a served coder in one call: the other kernels one after the other, so the
 * bits are theirs. What is computed here between them is rounded as torch rounds it, operation by operation.
 *
 * Legend: see common.h; m candidates and k entries a token. Every pointer of a coder is read at each call.
 */
#include "common.h"

enum { DONE = 0, NO_MEMORY = 1, REFUSED = 2, WRONG_OFFSETS = 3 };
enum { AVX512 = 2 }; /* levels of cpu_level */

typedef struct {
    const float *mean, *scale;
    const uint8_t *rotated;
    const int8_t *signs;
    const float *left, *right;
    i64 S, T; /* D = S T */
} Space;

typedef struct {
    const void *rows; /* floats where `points` is null, else words of codes (lookup.h) */
    const float *points, *scales;
    i64 G, row_bytes, bits, F;
} Matrix;

typedef struct {
    Space space;
    Matrix matrix;
    const float *bias, *offset, *importance; /* the last two may be null */
    const int8_t *packed;                    /* the screen's form of the matrix */
    const float *packed_scales;
    const int32_t *packed_sums;
    i64 level;
} Encoder;

typedef struct {
    Space space;
    Matrix matrix;
    const float *bias;
    i64 level;
} Decoder;

#define ROTATION(name)                                                                                   \
    int name(const float *rows, const int8_t *signs, const float *left, const float *right, float *out, \
             i64 N, i64 S, i64 T, int threads)
ROTATION(rotate_avx512);
ROTATION(unrotate_avx512);
ROTATION(unrotate_avx2);

#define DOTS(name)                                                                                          \
    void name(const float *left, const float *right, const int32_t *indices, const i64 *offsets, float *out, \
              i64 B, i64 D, int threads)
DOTS(gather_dot_avx512);

#define LOOKUP_DOTS(name)                                                                            \
    void name(const uint8_t *words, const float *points, i64 G, const float *scales, i64 D,          \
              i64 row_bytes, int bits, const float *left, const int32_t *indices, const i64 *offsets, \
              float *out, i64 B, int threads)
LOOKUP_DOTS(lookup_gather_dot_avx512);

#define PRODUCT(name)                                                                                   \
    void name(const int32_t *indices, const i64 *offsets, const float *values, const float *right,      \
              float *out, i64 B, i64 D, int threads)
PRODUCT(sparse_product_avx512);
PRODUCT(sparse_product_avx2);

#define LOOKUP_PRODUCT(name)                                                                             \
    void name(const uint8_t *words, const float *points, i64 G, const float *scales, i64 D,              \
              i64 row_bytes, int bits, const int32_t *indices, const i64 *offsets, const float *values, \
              float *out, i64 B, int threads)
LOOKUP_PRODUCT(lookup_product_avx512);
LOOKUP_PRODUCT(lookup_product_avx2);

int top_k_avx512(const float *scores, float *values, int32_t *indices, i64 C, i64 F, i64 k, int threads);
int screen(const int8_t *packed, const float *w_scales, const int32_t *sums, const float *x,
           const float *bias, const float *importance, int32_t *out, i64 B, i64 D, i64 F, i64 m, int level,
           int threads);

/* Whether all are finite: x - x is 0 then, and NaN otherwise. */
static int all_finite(const float *x, i64 n) {
    int wrong = 0;
    for (i64 i = 0; i < n; i++) wrong |= x[i] - x[i] != 0;
    return !wrong;
}

/* ((x - mean) / scale), rotated, minus the offset; `other` is as large as z. */
static int normalize(const Encoder *e, const float *x, float *z, float *other, i64 B, int threads) {
    const Space *s = &e->space;
    const i64 D = s->S * s->T;
    float *first = *s->rotated ? other : z;
    const float scale = *s->scale;
    for (i64 b = 0; b < B; b++)
        for (i64 i = 0; i < D; i++) first[b * D + i] = (x[b * D + i] - s->mean[i]) / scale;
    if (*s->rotated && rotate_avx512(other, s->signs, s->left, s->right, z, B, s->S, s->T, threads))
        return NO_MEMORY;
    for (i64 b = 0; e->offset && b < B; b++)
        for (i64 i = 0; i < D; i++) z[b * D + i] -= e->offset[i];
    return DONE;
}

/* Entries of one token ascending by index (Shell, 1959). */
static void sort_entries(int32_t *indices, float *values, i64 k) {
    static const i64 gaps[] = {701, 301, 132, 57, 23, 10, 4, 1};
    for (int g = 0; g < 8; g++) {
        i64 gap = gaps[g];
        for (i64 i = gap; i < k; i++) {
            int32_t index = indices[i];
            float value = values[i];
            i64 j = i;
            for (; j >= gap && indices[j - gap] > index; j -= gap)
                indices[j] = indices[j - gap], values[j] = values[j - gap];
            indices[j] = index, values[j] = value;
        }
    }
}

typedef struct {
    float *z, *other, *pre, *ranking, *largest;
    int32_t *candidates, *place;
    i64 *starts;
} Room;

/* Candidates and their exact pre-activations. */
static int search(const Encoder *e, const Room *r, i64 B, i64 m, int threads) {
    const i64 D = e->space.S * e->space.T;
    const Matrix *w = &e->matrix;
    if (m == w->F) {
        for (i64 i = 0; i < B * m; i++) r->candidates[i] = (int32_t)(i % m);
    } else if (screen(e->packed, e->packed_scales, e->packed_sums, r->z, e->bias, e->importance, r->candidates,
                      B, D, w->F, m, (int)e->level, threads))
        return NO_MEMORY;
    for (i64 b = 0; b <= B; b++) r->starts[b] = b * m;
    if (w->points)
        lookup_gather_dot_avx512(w->rows, w->points, w->G, w->scales, D, w->row_bytes, (int)w->bits, r->z,
                                 r->candidates, r->starts, r->pre, B, threads);
    else
        gather_dot_avx512(r->z, w->rows, r->candidates, r->starts, r->pre, B, D, threads);
    for (i64 i = 0; i < B * m; i++) r->pre[i] += e->bias[r->candidates[i]];
    return DONE;
}

/* The k largest candidates of each token. */
static int keep(const Encoder *e, const Room *r, int32_t *indices, float *pre, i64 *offsets, i64 B, i64 k,
                i64 m, int threads) {
    for (i64 i = 0; e->importance && i < B * m; i++)
        r->ranking[i] = r->pre[i] * e->importance[r->candidates[i]];
    const float *ranking = e->importance ? r->ranking : r->pre;
    if (top_k_avx512(ranking, r->largest, r->place, B, m, k, threads)) return NO_MEMORY;
    for (i64 b = 0; b < B; b++) {
        for (i64 i = b * k; i < b * k + k; i++) {
            i64 at = b * m + r->place[i];
            indices[i] = r->candidates[at], pre[i] = r->pre[at];
        }
        sort_entries(indices + b * k, pre + b * k, k);
    }
    for (i64 b = 0; b <= B; b++) offsets[b] = b * k;
    return DONE;
}

API int fused_encode(const Encoder *e, const float *x, int32_t *indices, float *pre, i64 *offsets, i64 B, i64 k,
                     i64 m, int threads) {
    const i64 D = e->space.S * e->space.T;
    offsets[0] = 0;
    if (!B) return DONE;
    if (!all_finite(x, B * D)) return REFUSED;
    char *memory = aligned(8 * (B + 1) + 4 * (2 * B * D + 3 * B * m + 2 * B * k));
    if (!memory) return NO_MEMORY;
    Room r = {.starts = (i64 *)(void *)memory};
    r.z = (float *)(void *)(r.starts + B + 1), r.other = r.z + B * D;
    r.pre = r.other + B * D, r.ranking = r.pre + B * m;
    r.candidates = (int32_t *)(void *)(r.ranking + B * m);
    r.place = r.candidates + B * m, r.largest = (float *)(void *)(r.place + B * k);
    int failed = normalize(e, x, r.z, r.other, B, threads) || search(e, &r, B, m, threads) ||
                 keep(e, &r, indices, pre, offsets, B, k, m, threads);
    free(memory);
    return failed ? NO_MEMORY : DONE;
}

static int within(const int32_t *indices, i64 N, i64 F) {
    int wrong = 0;
    for (i64 e = 0; e < N; e++) wrong |= indices[e] < 0 || indices[e] >= F;
    return !wrong;
}

static int covers(const i64 *offsets, i64 B, i64 N) {
    int wrong = offsets[0] != 0 || offsets[B] != N;
    for (i64 b = 0; b < B; b++) wrong |= offsets[b + 1] < offsets[b];
    return !wrong;
}

static void products(const Decoder *d, const int32_t *indices, const i64 *offsets, const float *values,
                     float *out, i64 B, int threads) {
    const i64 D = d->space.S * d->space.T;
    const Matrix *w = &d->matrix;
    if (w->points)
        (d->level >= AVX512 ? lookup_product_avx512 : lookup_product_avx2)(
            w->rows, w->points, w->G, w->scales, D, w->row_bytes, (int)w->bits, indices, offsets, values, out,
            B, threads);
    else
        (d->level >= AVX512 ? sparse_product_avx512 : sparse_product_avx2)(indices, offsets, values, w->rows,
                                                                            out, B, D, threads);
}

API int fused_decode(const Decoder *d, const int32_t *indices, const i64 *offsets, const float *values,
                     float *out, i64 B, i64 N, int threads) {
    const Space *s = &d->space;
    const i64 D = s->S * s->T;
    if (!covers(offsets, B, N)) return WRONG_OFFSETS;
    if (!within(indices, N, d->matrix.F)) return REFUSED;
    if (!B) return DONE;
    float *z = *s->rotated ? aligned(4 * B * D) : out;
    if (!z) return NO_MEMORY;
    products(d, indices, offsets, values, z, B, threads);
    for (i64 b = 0; b < B; b++)
        for (i64 i = 0; i < D; i++) z[b * D + i] += d->bias[i];
    int failed = 0;
    if (*s->rotated) {
        failed = (d->level >= AVX512 ? unrotate_avx512 : unrotate_avx2)(z, s->signs, s->left, s->right, out, B,
                                                                        s->S, s->T, threads);
        free(z);
    }
    const float scale = *s->scale;
    for (i64 b = 0; !failed && b < B; b++)
        for (i64 i = 0; i < D; i++) out[b * D + i] = out[b * D + i] * scale + s->mean[i];
    return failed ? NO_MEMORY : DONE;
}
