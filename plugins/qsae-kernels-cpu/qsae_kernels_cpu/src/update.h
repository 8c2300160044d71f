/* Passes over a matrix of weights, written in lanes; included once per instruction set.
 *
 *   project_rows    grad[f] -= <grad[f], weight[f]> weight[f]; the sum of squares of the result
 *   adam            one step of Adam, and rows scaled to norm 1
 *   ternary_scales  the scale of the best ternary grid of each row
 *
 * Legend: grad, weight, exp_avg, exp_avg_sq [F, D]; magnitudes [R, C].
 */

API double GLUE(project_rows, ISA)(float *grad, const float *weight, i64 F, i64 D, int threads) {
    double partial[1024];
    if (F * D < SMALL_WORK) threads = 1;
    threads = MIN(threads, 1024);
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (threads > 1)
    for (int t = 0; t < threads; t++) {
        vd total = vd_zero();
        for (i64 f = F * t / threads; f < F * (t + 1) / threads; f++) {
            float *g = grad + f * D;
            const float *w = weight ? weight + f * D : g;
            vf along = vf_all(weight ? dot(g, w, D) : 0);
            for (i64 i = 0; i < D; i += 16) {
                lanes some = first_lanes(D - i);
                vf rest = vf_load_some(g + i, some);
                if (weight) {
                    rest = vf_fnma(along, vf_load_some(w + i, some), rest);
                    vf_store_some(g + i, rest, some);
                }
                vd_add_squares(&total, rest);
            }
        }
        partial[t] = vd_sum(total);
    }
    double sum = 0;
    for (int t = 0; t < threads; t++) sum += partial[t];
    return sum;
}

typedef struct { vf scale, keep2, rate1, rate2, step_size, eps, root2; } AdamLanes;

static double power(double base, i64 exponent) {
    double result = 1;
    for (; exponent > 0; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

/* Sixteen weights; returns them after the step. */
INLINE vf adam_lanes(float *w, const float *g, float *m, float *v, lanes some, const AdamLanes *o) {
    vf grad = vf_mul(vf_load_some(g, some), o->scale);
    vf mean = vf_load_some(m, some);
    mean = vf_fma(o->rate1, vf_sub(grad, mean), mean);
    vf square = vf_fma(vf_mul(o->rate2, grad), grad, vf_mul(o->keep2, vf_load_some(v, some)));
    vf_store_some(m, mean, some);
    vf_store_some(v, square, some);
    vf denominator = vf_add(vf_div(vf_sqrt(square), o->root2), o->eps);
    vf weight = vf_fnma(o->step_size, vf_div(mean, denominator), vf_load_some(w, some));
    vf_store_some(w, weight, some);
    return weight;
}

static void unit_row(float *w, i64 D, vf squares) {
    float sum = vf_sum(squares);
    if (!(sum > 0)) return;
    vf norm = vf_sqrt(vf_all(sum));
    for (i64 i = 0; i < D; i += 16) {
        lanes some = first_lanes(D - i);
        vf_store_some(w + i, vf_div(vf_load_some(w + i, some), norm), some);
    }
}

/* F rows of D; hyperparameters are doubles until they meet float32 lanes, as in torch. */
API void GLUE(adam, ISA)(float *w, const float *g, float *m, float *v, i64 F, i64 D, double lr, double beta1,
                         double beta2, double eps, i64 step, double grad_scale, int unit_rows, int threads) {
    double correction1 = 1 - power(beta1, step), correction2 = 1 - power(beta2, step);
    float root2 = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss((float)correction2)));
    AdamLanes o = {vf_all((float)grad_scale), vf_all((float)beta2), vf_all((float)(1 - beta1)),
                   vf_all((float)(1 - beta2)), vf_all((float)(lr / correction1)), vf_all((float)eps),
                   vf_all(root2)};
    i64 total = F * D;
    if (total < SMALL_WORK) threads = 1;
    if (!unit_rows) D = 4096, F = divide_up(total, D); /* rows have no meaning then: equal pieces */
    i64 rows = MAX(1, 16384 / MAX(D, 1));              /* a piece of work: 64 KB of each matrix */
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (i64 start = 0; start < F; start += rows) {
        for (i64 f = start; f < MIN(start + rows, F); f++) {
            vf squares = vf_zero();
            i64 stop = MIN(f * D + D, total);
            for (i64 at = f * D; at < stop; at += 16) {
                vf weight = adam_lanes(w + at, g + at, m + at, v + at, first_lanes(stop - at), &o);
                squares = vf_fma(weight, weight, squares);
            }
            if (unit_rows) unit_row(w + f * D, D, squares);
        }
    }
}

