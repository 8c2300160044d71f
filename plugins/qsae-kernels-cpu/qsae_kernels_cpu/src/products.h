/* Products of sparse codes with dense rows, written in lanes; included once per instruction set.
 *
 *   gather_dot      out[e] = <left[b], right[indices[e]]>            e an entry of token b
 *   sparse_product  out[b] = sum over e of values[e] right[indices[e]], in order, one rounding per term
 *
 * Legend: left [B, D], right [F, D], out [N] or [B, D]; indices [N], offsets [B + 1].
 */

#define AHEAD 4 /* entries whose rows are asked for before they are needed */

INLINE void prefetch_row(const float *row, i64 width) {
    for (i64 i = 0; i < width; i += 16) __builtin_prefetch(row + i);
}

/* Vector s of the row goes into sum s % 4; the sums are added pairwise: the order depends on D alone. */
INLINE float add_sums(const vf sums[4]) {
    return vf_sum(vf_add(vf_add(sums[0], sums[1]), vf_add(sums[2], sums[3])));
}

INLINE float dot(const float *a, const float *b, i64 D) {
    vf sums[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    i64 i = 0;
    for (; i + 64 <= D; i += 64) {
        UNROLL for (int s = 0; s < 4; s++)
            sums[s] = vf_fma(vf_load(a + i + 16 * s), vf_load(b + i + 16 * s), sums[s]);
    }
    UNROLL for (int s = 0; s < 4; s++) {
        if (i + 16 * s >= D) break;
        lanes some = first_lanes(D - i - 16 * s);
        sums[s] = vf_fma(vf_load_some(a + i + 16 * s, some), vf_load_some(b + i + 16 * s, some), sums[s]);
    }
    return add_sums(sums);
}

API void GLUE(gather_dot, ISA)(const float *left, const float *right, const int32_t *indices,
                               const i64 *offsets, float *out, i64 B, i64 D, int threads) {
    i64 N = offsets[B], step = MAX(16, MIN(256, divide_up(N, threads)));
    if (N * D < SMALL_PRODUCT) threads = 1, step = MAX(N, 1);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (i64 start = 0; start < N; start += step) {
        i64 stop = MIN(start + step, N), b = bag_of(offsets, B, start);
        for (i64 e = start; e < MIN(start + AHEAD, stop); e++) prefetch_row(right + indices[e] * D, D);
        for (i64 e = start; e < stop; e++) {
            while (offsets[b + 1] <= e) b++;
            if (e + AHEAD < stop) prefetch_row(right + indices[e + AHEAD] * D, D);
            out[e] = dot(left + b * D, right + indices[e] * D, D);
        }
    }
}

/* `count` vectors of columns of one bag; the last is cut to `last` lanes where `cut`. */
INLINE void bag_columns(const float *right, const int32_t *indices, const float *values, i64 start, i64 stop,
                        i64 N, i64 D, float *out, const int count, const int cut, lanes last) {
    vf sums[WIDE];
    UNROLL for (int s = 0; s < count; s++) sums[s] = vf_zero();
    for (i64 e = start; e < stop; e++) {
        const float *row = right + indices[e] * D;
        if (e + AHEAD < N) {
            const float *next = right + indices[e + AHEAD] * D;
            UNROLL for (int s = 0; s < count; s++) __builtin_prefetch(next + 16 * s);
        }
        vf value = vf_all(values[e]);
        UNROLL for (int s = 0; s < count; s++) {
            vf part = cut && s == count - 1 ? vf_load_some(row + 16 * s, last) : vf_load(row + 16 * s);
            sums[s] = vf_fma(value, part, sums[s]);
        }
    }
    UNROLL for (int s = 0; s < count; s++) {
        if (cut && s == count - 1) vf_store_some(out + 16 * s, sums[s], last);
        else vf_store(out + 16 * s, sums[s]);
    }
}

/* One bag, in blocks of columns whose sums stay in registers. */
static void product_of_bag(const float *right, const int32_t *indices, const float *values, i64 start,
                           i64 stop, i64 N, i64 D, float *out) {
    i64 i = 0;
    lanes none = first_lanes(0);
#define BLOCK(count, cut, last) \
    bag_columns(right + i, indices, values, start, stop, N, D, out + i, count, cut, last)
    for (; i + 16 * WIDE <= D; i += 16 * WIDE) BLOCK(WIDE, 0, none);
    for (; i + 64 <= D; i += 64) BLOCK(4, 0, none);
    for (; i + 16 <= D; i += 16) BLOCK(1, 0, none);
    if (i < D) BLOCK(1, 1, first_lanes(D - i));
#undef BLOCK
}

API void GLUE(sparse_product, ISA)(const int32_t *indices, const i64 *offsets, const float *values,
                                   const float *right, float *out, i64 B, i64 D, int threads) {
    i64 N = offsets[B], places = N + B, step = MAX(64, MIN(1024, divide_up(places, 4 * threads)));
    if (N * D < SMALL_PRODUCT) threads = 1, step = MAX(places, 1);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (i64 place = 0; place < places; place += step) {
        i64 last = bag_at(offsets, B, place + step);
        for (i64 b = bag_at(offsets, B, place); b < last; b++)
            product_of_bag(right, indices, values, offsets[b], offsets[b + 1], N, D, out + b * D);
    }
}
