/* The rotation of a normalised space, written in lanes; included once per instruction set.
 *
 *   rotate    out = left (X right)          of the row times its signs
 *   unrotate  out = ((left X) right^T)      times the signs
 *
 * Each entry of a product is summed from zero on in the order of the terms, one rounding per term.
 *
 * Legend: rows and out [N, D], D = S T, each row read as X [S, T]; signs [D], left [S, S], right [T, T].
 */

/* out [rows, T] = a [rows, n] b [n, T], up to 16 columns of it. */
INLINE void product_columns(const float *a, const float *b, float *out, i64 n, i64 T, lanes some,
                            const int rows) {
    vf sums[WIDE / 2];
    UNROLL for (int r = 0; r < rows; r++) sums[r] = vf_zero();
    for (i64 i = 0; i < n; i++) {
        vf right = vf_load_some(b + i * T, some);
        UNROLL for (int r = 0; r < rows; r++) sums[r] = vf_fma(vf_all(a[r * n + i]), right, sums[r]);
    }
    UNROLL for (int r = 0; r < rows; r++) vf_store_some(out + r * T, sums[r], some);
}

static void small_product(const float *a, const float *b, float *out, i64 S, i64 n, i64 T) {
    for (i64 t = 0; t < T; t += 16) {
        lanes some = first_lanes(T - t);
        i64 s = 0;
        for (; s + WIDE / 2 <= S; s += WIDE / 2)
            product_columns(a + s * n, b + t, out + s * T + t, n, T, some, WIDE / 2);
        for (; s < S; s++) product_columns(a + s * n, b + t, out + s * T + t, n, T, some, 1);
    }
}

/* out [T, T] = a^T, four by four. */
static void transpose(const float *a, float *out, i64 T) {
    const i64 whole = T / 4 * 4;
    for (i64 i = 0; i < whole; i += 4)
        for (i64 j = 0; j < whole; j += 4) {
            __m128 rows[4];
            UNROLL for (int r = 0; r < 4; r++) rows[r] = _mm_loadu_ps(a + (i + r) * T + j);
            _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
            UNROLL for (int r = 0; r < 4; r++) _mm_storeu_ps(out + (j + r) * T + i, rows[r]);
        }
    for (i64 i = 0; i < T; i++)
        for (i64 j = i < whole ? whole : 0; j < T; j++) out[j * T + i] = a[i * T + j];
}

INLINE void times_signs(const float *row, const int8_t *signs, float *out, i64 D) {
    for (i64 i = 0; i < D; i++) out[i] = row[i] * (float)signs[i];
}

/* Where the work is worth a thread of its own, rows are shared out. */
INLINE int rotating_threads(i64 N, i64 S, i64 T, int threads) {
    return N < 2 || N * S * T * (S + T) < SMALL_PRODUCT ? 1 : threads;
}

API int GLUE(rotate, ISA)(const float *rows, const int8_t *signs, const float *left, const float *right,
                          float *out, i64 N, i64 S, i64 T, int threads) {
    const i64 D = S * T;
    threads = rotating_threads(N, S, T, threads);
    float *memory = aligned(4 * 2 * D * threads);
    if (!memory) return 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (i64 row = 0; row < N; row++) {
        float *signed_row = memory + 2 * D * omp_get_thread_num(), *half = signed_row + D;
        times_signs(rows + row * D, signs, signed_row, D);
        small_product(signed_row, right, half, S, T, T);
        small_product(left, half, out + row * D, S, S, T);
    }
    free(memory);
    return 0;
}

API int GLUE(unrotate, ISA)(const float *rows, const int8_t *signs, const float *left, const float *right,
                            float *out, i64 N, i64 S, i64 T, int threads) {
    const i64 D = S * T;
    threads = rotating_threads(N, S, T, threads);
    float *memory = aligned(4 * (T * T + 2 * D * threads));
    if (!memory) return 1;
    float *transposed = memory + 2 * D * threads;
    transpose(right, transposed, T);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (i64 row = 0; row < N; row++) {
        float *half = memory + 2 * D * omp_get_thread_num(), *whole = half + D;
        small_product(left, rows + row * D, half, S, S, T);
        small_product(half, transposed, whole, S, T, T);
        times_signs(whole, signs, out + row * D, D);
    }
    free(memory);
    return 0;
}
