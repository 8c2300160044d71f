/* The entries of rows of scores above a threshold, written in lanes; included once per instruction set.
 *
 * scores [C, F] -> compressed rows, ascending by latent. How many there are is known only at the end, and
 * scores are too large to be read twice: so each thread appends to a piece of its own, and the pieces are then
 * put together where the caller has made room.
 */

typedef struct {
    int32_t *indices, *values; /* bits of the values */
    i64 count, room, first_row, last_row;
} Piece;

typedef struct {
    int pieces, failed;
    Piece piece[];
} Pieces;

/* Room for one more row of F entries and a vector beyond; 0 where memory is short. */
INLINE int grow(Piece *p, i64 F) {
    i64 wanted = p->count + F + 16;
    if (wanted <= p->room) return 1;
    wanted = MAX(wanted, 2 * p->room);
    int32_t *indices = realloc(p->indices, (size_t)wanted * 4);
    if (indices) p->indices = indices;
    int32_t *values = realloc(p->values, (size_t)wanted * 4);
    if (values) p->values = values;
    if (indices && values) p->room = wanted;
    return indices && values;
}

static void append_row(Piece *p, const float *row, i64 F, vf limit) {
    for (i64 i = 0; i < F; i += 16) {
        lanes some = first_lanes(F - i);
        vf scores = i + 16 <= F ? vf_load(row + i) : vf_load_some(row + i, some);
        unsigned mask = vf_gt(scores, limit);
        if (i + 16 > F) mask &= (1u << (F - i)) - 1;
        if (!mask) continue;
        vi_compress(p->indices + p->count, vi_count_from((int)i), mask);
        vi_compress(p->values + p->count, vi_bits(scores), mask);
        p->count += __builtin_popcount(mask);
    }
}

/* offsets[row] = where the row begins, counted from its piece's start. */
static void fill_piece(Piece *p, const float *scores, float threshold, i64 *offsets, i64 F, int *failed) {
    for (i64 row = p->first_row; row < p->last_row; row++) {
        if (!grow(p, F)) {
#pragma omp atomic write
            *failed = 1;
            return;
        }
        offsets[row] = p->count;
        append_row(p, scores + row * F, F, vf_all(threshold));
    }
}

static void free_pieces(Pieces *all) {
    for (int t = 0; t < all->pieces; t++) free(all->piece[t].indices), free(all->piece[t].values);
    free(all);
}

/* The pieces, to be given to compress_end; NULL where memory is short. offsets [C + 1] are final. */
API void *GLUE(compress_begin, ISA)(const float *scores, float threshold, i64 *offsets, i64 C, i64 F,
                                    int threads) {
    if (C * F < SMALL_WORK) threads = 1;
    Pieces *all = calloc(1, sizeof(Pieces) + (size_t)threads * sizeof(Piece));
    if (!all) return NULL;
    all->pieces = threads;
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (threads > 1)
    for (int t = 0; t < threads; t++) {
        Piece *p = &all->piece[t];
        p->first_row = C * t / threads, p->last_row = C * (t + 1) / threads;
        fill_piece(p, scores, threshold, offsets, F, &all->failed);
    }
    if (all->failed) {
        free_pieces(all);
        return NULL;
    }
    i64 before = 0;
    for (int t = 0; t < threads; t++) {
        for (i64 row = all->piece[t].first_row; row < all->piece[t].last_row; row++) offsets[row] += before;
        before += all->piece[t].count;
    }
    offsets[C] = before;
    return all;
}

API void GLUE(compress_end, ISA)(void *pieces, const i64 *offsets, int32_t *indices, int32_t *values) {
    Pieces *all = pieces;
#pragma omp parallel for schedule(static, 1) num_threads(all->pieces) if (all->pieces > 1)
    for (int t = 0; t < all->pieces; t++) {
        const Piece *p = &all->piece[t];
        if (!p->count) continue;
        memcpy(indices + offsets[p->first_row], p->indices, (size_t)p->count * 4);
        memcpy(values + offsets[p->first_row], p->values, (size_t)p->count * 4);
    }
    free_pieces(all);
}
