/* The k largest entries of rows of scores, written in lanes; included once per instruction set.
 *
 * scores [C, F] -> values [C, k], indices [C, k], in any order.
 */

#define ROW_STRIP 64

/* The scores of one row from latent `start` on; -inf passes no threshold and is taken up by fill_up. */
static void offer_row(Candidates *c, const float *row, i64 F) {
    i64 i = 0;
    vf limit = vf_all(c->threshold);
    for (; i + ROW_STRIP <= F; i += ROW_STRIP) {
        unsigned masks[4], any = 0;
        UNROLL for (int s = 0; s < 4; s++) any |= masks[s] = vf_not_le(vf_load(row + i + 16 * s), limit);
        if (__builtin_expect(!any, 1)) continue;
        make_room(c, ROW_STRIP);
        for (int s = 0; s < 4; s++)
            if (masks[s]) append(c, vf_load(row + i + 16 * s), vi_count_from((int)i + 16 * s), masks[s]);
        limit = vf_all(c->threshold);
    }
    for (; i < F; i += 16) {
        lanes some = first_lanes(F - i);
        vf scores = vf_load_some(row + i, some);
        make_room(c, 16);
        unsigned valid = F - i >= 16 ? 0xffff : (1u << (F - i)) - 1;
        append(c, scores, vi_count_from((int)i), vf_not_le(scores, vf_all(c->threshold)) & valid);
    }
}

/* Where fewer than k scores are above -inf: the first latents at -inf. */
static void fill_up(Candidates *c, const float *row, i64 F) {
    for (i64 i = 0; i < F && c->count < c->k; i++)
        if (row[i] == -__builtin_inff())
            c->keys[c->count] = key_of(row[i]), c->latents[c->count++] = (int32_t)i;
}

API int GLUE(top_k, ISA)(const float *scores, float *values, int32_t *indices, i64 C, i64 F, i64 k,
                         int threads) {
    i64 room = candidate_room(k, ROW_STRIP), bytes = candidate_bytes(room);
    if (C * F < SMALL_WORK) threads = 1;
    char *memory = aligned(bytes * threads);
    if (!memory) return 1;
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads) if (threads > 1)
    for (i64 row = 0; row < C; row++) {
        Candidates c = candidates_in(memory + bytes * omp_get_thread_num(), k, room);
        offer_row(&c, scores + row * F, F);
        if (c.count > k) prune(&c, k);
        fill_up(&c, scores + row * F, F);
        for (i64 i = 0; i < k; i++) values[row * k + i] = score_of(c.keys[i]);
        memcpy(indices + row * k, c.latents, (size_t)k * 4);
    }
    free(memory);
    return 0;
}
