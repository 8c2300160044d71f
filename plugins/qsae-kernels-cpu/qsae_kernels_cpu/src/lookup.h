/* Products with a matrix of codes, W_hat[f, d] = round(points[code[f, d]] * scales[f]), written in lanes;
 * included once per instruction set. Same order of operations as products.h on W_hat, so the same bits.
 *
 * Layout of a row of b-bit codes (b = 1, 2, 4): vectors of sixteen 32-bit words; bits b t .. b t + b - 1 of
 * word i of a vector hold column 16 t + i of the 512 / b columns of that vector. The sixteen-entry table of a
 * row repeats the points over the index bits above b, so that a shift is all that decoding needs; where lanes
 * are looked up by four bits, further tables for the higher index bits save all but one shift in 4 / b.
 * b = 8: one byte per column, padded to 16; points that are evenly spaced come from the code by one fma.
 *
 * Legend: words [F, row_bytes], points [G], scales [F], D = width; left [B, D]; N entries.
 */

#define CODES_AHEAD 8 /* entries whose codes are asked for before they are needed */

typedef struct {
    const uint8_t *words;
    const float *scales;
    i64 D, row_bytes;
    float points[256];
    float tables[4][16]; /* [u][i]: the point of bits b u .. b u + b - 1 of i */
    int even;          /* points[c] = fma(c, step, origin), exactly */
    float step, origin;
} Lookup;

/* Up to sixteen vectors of weights of one row. */
typedef struct {
    vtable tables[4];
    vf scale;
    vi words[2];
    const uint8_t *bytes;
} Part;

static Lookup lookup_of(const uint8_t *words, const float *points, i64 G, const float *scales, i64 D,
                        i64 row_bytes, int bits) {
    Lookup m = {.words = words, .scales = scales, .D = D, .row_bytes = row_bytes};
    memcpy(m.points, points, (size_t)G * 4);
    for (int u = 0; bits < 8 && u < 4 / bits; u++)
        for (int i = 0; i < 16; i++) m.tables[u][i] = m.points[i >> bits * u & ((1 << bits) - 1)];
    m.origin = points[0];
    m.step = G > 1 ? (points[G - 1] - points[0]) / (float)(G - 1) : 0;
    m.even = 1;
    for (int c = 0; c < G; c++) m.even &= __builtin_fmaf((float)c, m.step, m.origin) == points[c];
    return m;
}

INLINE void prefetch_codes(const Lookup *m, i64 f) {
    for (i64 i = 0; i < m->row_bytes; i += 64) __builtin_prefetch(m->words + f * m->row_bytes + i);
}

/* The part of row f from vector `first` on; it ends within the word where `first` is inside one. */
INLINE Part part_of(const Lookup *m, i64 f, const int bits, i64 first, const int count) {
    const uint8_t *row = m->words + f * m->row_bytes;
    Part part;
    if (bits == 8) {
        part.scale = vf_all(m->scales[f]);
        part.bytes = row + 16 * first;
        return part;
    }
    const int steps = 32 / bits;
    UNROLL for (int u = 0; u < MIN(count, LOOKUPS_PER_SHIFT(bits)); u++)
        part.tables[u] = vtable_scale(vtable_of(m->tables[u]), m->scales[f]);
    part.words[0] = vi_shift_by(vi_load(row + 64 * (first / steps)), bits * (int)(first % steps));
    if (count > steps) part.words[1] = vi_load(row + 64 * (first / steps + 1));
    return part;
}

INLINE vf weights_at(const Lookup *m, const Part *part, const int bits, const int s) {
    if (bits == 8) {
        vi code = vi_from_bytes(part->bytes + 16 * s);
        vf point = m->even ? vf_fma(vf_from_int(code), vf_all(m->step), vf_all(m->origin))
                           : vf_gather(m->points, code);
        return vf_mul(point, part->scale);
    }
    const int t = s % (32 / bits), u = t % LOOKUPS_PER_SHIFT(bits);
    vi word = part->words[s / (32 / bits)];
    return vtable_at(part->tables[u], t > u ? vi_shift(word, bits * (t - u)) : word, bits);
}

INLINE void lookup_columns(const Lookup *m, const int bits, const int32_t *indices, const float *values,
                           i64 start, i64 stop, i64 N, float *out, i64 first, const int count) {
    vf sums[WIDE];
    UNROLL for (int s = 0; s < count; s++) sums[s] = vf_zero();
    for (i64 e = start; e < stop; e++) {
        if (first == 0 && e + CODES_AHEAD < N) prefetch_codes(m, indices[e + CODES_AHEAD]);
        Part part = part_of(m, indices[e], bits, first, count);
        vf value = vf_all(values[e]);
        UNROLL for (int s = 0; s < count; s++) sums[s] = vf_fma(value, weights_at(m, &part, bits, s), sums[s]);
    }
    if (16 * (first + count) <= m->D) {
        UNROLL for (int s = 0; s < count; s++) vf_store(out + 16 * (first + s), sums[s]);
    } else {
        vf_store_some(out + 16 * first, sums[0], first_lanes(m->D - 16 * first)); /* count is 1 */
    }
}

INLINE void lookup_bags(const Lookup *m, const int bits, const int32_t *indices, const i64 *offsets,
                        const float *values, float *out, i64 first_bag, i64 last_bag, i64 N) {
    for (i64 b = first_bag; b < last_bag; b++) {
        i64 v = 0, start = offsets[b], stop = offsets[b + 1];
        float *row = out + b * m->D;
#define COLUMNS(count) lookup_columns(m, bits, indices, values, start, stop, N, row, v, count)
        for (; 16 * (v + WIDE) <= m->D; v += WIDE) COLUMNS(WIDE);
        for (; 16 * (v + 4) <= m->D; v += 4) COLUMNS(4);
        for (; 16 * v < m->D; v++) COLUMNS(1);
#undef COLUMNS
    }
}

#define FOR_BITS(bits, call) \
    switch (bits) { case 1: call(1); break; case 2: call(2); break; case 4: call(4); break; default: call(8); }

API void GLUE(lookup_product, ISA)(const uint8_t *words, const float *points, i64 G, const float *scales,
                                   i64 D, i64 row_bytes, int bits, const int32_t *indices,
                                   const i64 *offsets, const float *values, float *out, i64 B, int threads) {
    Lookup m = lookup_of(words, points, G, scales, D, row_bytes, bits);
    i64 N = offsets[B], places = N + B, step = MAX(64, MIN(1024, divide_up(places, 4 * threads)));
    if (N * D < SMALL_PRODUCT) threads = 1, step = MAX(places, 1);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (i64 place = 0; place < places; place += step) {
        i64 first = bag_at(offsets, B, place), last = bag_at(offsets, B, place + step);
#define BAGS(b) lookup_bags(&m, b, indices, offsets, values, out, first, last, N)
        FOR_BITS(bits, BAGS)
#undef BAGS
    }
}

INLINE float lookup_dot(const Lookup *m, const int bits, const float *left, i64 f) {
    vf sums[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    i64 v = 0, D = m->D;
    for (; 16 * (v + WIDE) <= D; v += WIDE) {
        Part part = part_of(m, f, bits, v, WIDE);
        UNROLL for (int s = 0; s < WIDE; s++)
            sums[s % 4] = vf_fma(vf_load(left + 16 * (v + s)), weights_at(m, &part, bits, s), sums[s % 4]);
    }
    for (; 16 * v < D; v += 4) {
        UNROLL for (int s = 0; s < 4; s++) {
            if (16 * (v + s) >= D) break;
            Part part = part_of(m, f, bits, v + s, 1);
            vf x = vf_load_some(left + 16 * (v + s), first_lanes(D - 16 * (v + s)));
            sums[s] = vf_fma(x, weights_at(m, &part, bits, 0), sums[s]);
        }
    }
    return add_sums(sums);
}

INLINE void lookup_dots(const Lookup *m, const int bits, const float *left, const int32_t *indices,
                        const i64 *offsets, float *out, i64 start, i64 stop, i64 B) {
    for (i64 e = start, b = bag_of(offsets, B, start); e < stop; e++) {
        while (offsets[b + 1] <= e) b++;
        if (e + CODES_AHEAD < stop) prefetch_codes(m, indices[e + CODES_AHEAD]);
        out[e] = lookup_dot(m, bits, left + b * m->D, indices[e]);
    }
}

API void GLUE(lookup_gather_dot, ISA)(const uint8_t *words, const float *points, i64 G, const float *scales,
                                      i64 D, i64 row_bytes, int bits, const float *left,
                                      const int32_t *indices, const i64 *offsets, float *out, i64 B,
                                      int threads) {
    Lookup m = lookup_of(words, points, G, scales, D, row_bytes, bits);
    i64 N = offsets[B], step = MAX(16, MIN(256, divide_up(N, threads)));
    if (N * D < SMALL_PRODUCT) threads = 1, step = MAX(N, 1);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (i64 start = 0; start < N; start += step) {
        i64 stop = MIN(start + step, N);
#define DOTS(b) lookup_dots(&m, b, left, indices, offsets, out, start, stop, B)
        FOR_BITS(bits, DOTS)
#undef DOTS
    }
}

/* codes [F, D] of `bits` bits each -> the layout above. */
API void GLUE(lookup_pack, ISA)(const uint8_t *codes, uint8_t *words, i64 F, i64 D, i64 row_bytes, int bits,
                                int threads) {
    const int steps = 32 / bits;
    if (F * D < SMALL_WORK) threads = 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (i64 f = 0; f < F; f++) {
        uint8_t *row = words + f * row_bytes;
        memset(row, 0, (size_t)row_bytes);
        if (bits == 8) {
            memcpy(row, codes + f * D, (size_t)D);
            continue;
        }
        for (i64 v = 0; 16 * v < D; v++) {
            uint32_t *word = (uint32_t *)(void *)(row + 64 * (v / steps));
            for (i64 i = 0; i < MIN(16, D - 16 * v); i++)
                word[i] |= (uint32_t)(codes[f * D + 16 * v + i] & ((1 << bits) - 1)) << (bits * (v % steps));
        }
    }
}
