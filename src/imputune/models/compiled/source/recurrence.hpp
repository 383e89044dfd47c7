// The recurrence of imputune/models/fast_recurrence.py, whose docstring has the equations of both passes.
//
// K directions, T hours, B stays, D variables, H hidden size, O = D + 3H, G = 3H gates, I = 2D + 1; Xp: X filled up.

// What the gates read in an hour: [completed values, observed, 1].
inline void fill_inputs(const float* values, const float* observed, const float* combined, long B, long D,
                        float* inputs) {
    const long I = 2 * D + 1;
    for (long b = 0; b < B; b++) {
        float* row = inputs + b * I;
        for (long i = 0; i < D; i++) row[i] = values[b * D + i] + (1.0f - observed[b * D + i]) * combined[b * D + i];
        std::memcpy(row + D, observed + b * D, D * sizeof(float));
        row[2 * D] = 1.0f;
    }
}

void recurrence_forward(const RecurrenceSizes& sizes, const Steps& steps, const Weights& weights, const float* first,
                        const Trace& trace, const Kept& kept) {
    const long K = sizes.K, T = sizes.T, B = sizes.B, D = sizes.D, H = sizes.H;
    const long O = D + 3 * H, I = 2 * D + 1, G = 3 * H, Op = padded(O), Dp = padded(D), Gp = padded(G);
    std::vector<float> p(B * Op), completed_by_history(B * D), feature(B * Dp), inputs(B * I), q(B * Gp);
    for (long k = 0; k < K; k++) {
        const auto W_h = filled(weights.hidden + k * H * O, H, O), W_f = filled(weights.feature + k * D * D, D, D),
                   W_i = filled(weights.input + k * I * G, I, G);
        const float *b_h = weights.history_bias + k * D, *b_n = weights.new_bias + k * H,
                    *b_f = weights.feature_bias + k * D;
        const float* hidden = first + k * B * H;
        for (long t = 0; t < T; t++) {
            const long at = (k * T + t) * B;
            const float *values = steps.values + at * D, *observed = steps.observed + at * D,
                        *rate = steps.rate + at * H, *weight = steps.weight + at * D;
            float *decayed = kept.decayed + at * H, *history = trace.history + at * D,
                  *combined = trace.combined + at * D;
            for (long i = 0; i < B * H; i += LANES) {
                const long n = B * H - i;
                store(decayed + i, load(hidden + i, n) * bounded_exponential(-load(rate + i, n)), n);
            }
            multiply({decayed, H}, W_h.data(), Op, p.data(), Op, B, H, Op);
            for (long b = 0; b < B; b++) {
                for (long i = 0; i < D; i += LANES) {
                    const long n = D - i, at_i = b * D + i;
                    const vec estimate = load(&p[b * Op + i], n) + load(b_h + i, n);
                    store(history + at_i, estimate, n);
                    store(&completed_by_history[at_i],
                          load(values + at_i, n) + (1.0f - load(observed + at_i, n)) * estimate, n);
                }
                for (long i = 0; i < H; i += LANES)
                    store(kept.hidden_new + (at + b) * H + i, load(&p[b * Op + D + i], H - i) + load(b_n + i, H - i),
                          H - i);
            }
            multiply({completed_by_history.data(), D}, W_f.data(), Dp, feature.data(), Dp, B, D, Dp);
            for (long b = 0; b < B; b++)
                for (long i = 0; i < D; i += LANES) {
                    const long n = D - i, at_i = b * D + i;
                    const vec f = load(&feature[b * Dp + i], n) + load(b_f + i, n), estimate = load(history + at_i, n);
                    store(kept.feature + at * D + at_i, f, n);
                    store(combined + at_i, estimate + load(weight + at_i, n) * (f - estimate), n);
                }
            fill_inputs(values, observed, combined, B, D, inputs.data());
            multiply({inputs.data(), I}, W_i.data(), Gp, q.data(), Gp, B, I, Gp);
            for (long b = 0; b < B; b++) {
                const float *from_hidden = &p[b * Op + D + H], *from_inputs = &q[b * Gp];
                float *reset = kept.reset_update + (at + b) * 2 * H, *update = reset + H;
                const long row = (at + b) * H;
                for (long i = 0; i < H; i += LANES) {
                    const long n = H - i;
                    const vec r = sigmoid(load(from_inputs + i, n) + load(from_hidden + i, n)),
                              z = sigmoid(load(from_inputs + H + i, n) + load(from_hidden + H + i, n)),
                              of_hidden = load(kept.hidden_new + row + i, n),
                              candidate = tangent(load(from_inputs + 2 * H + i, n) + r * of_hidden);
                    store(reset + i, r, n);
                    store(update + i, z, n);
                    store(kept.new_gate + row + i, candidate, n);
                    store(trace.hidden + row + i, candidate + z * (load(kept.decayed + row + i, n) - candidate), n);
                }
            }
            hidden = trace.hidden + at * H;
        }
    }
}

// `joined`, B rows of an hour: gradients of [history, hidden_new, reset, update, new], the last three before their
// functions.
void recurrence_backward(const RecurrenceSizes& sizes, const Steps& steps, const Weights& by_output, const Trace& trace,
                         const Kept& kept, const Trace& given, const Gradients& gradients) {
    const long K = sizes.K, T = sizes.T, B = sizes.B, D = sizes.D, H = sizes.H;
    const long O = D + 3 * H, I = 2 * D + 1, G = 3 * H, Op = padded(O), Gp = padded(G), Hp = padded(H), Dp = padded(D);
    const long J = D + 4 * H + LANES;  // whole vectors may be read from every part
    std::vector<float> joined(B * J), through_update(B * H), to_completed(B * Dp), G_feature(B * Dp),
        to_history(B * Dp),
        G_decayed(B * Hp), inputs(B * I), completed_by_history(B * D);
    for (long k = 0; k < K; k++) {
        const auto W_h = filled(by_output.hidden + k * O * H, O, H), W_f = filled(by_output.feature + k * D * D, D, D),
                   W_x = filled(by_output.input + k * G * D, G, D);
        std::vector<float> G_W_h(H * Op), G_W_f(D * Dp), G_W_i(I * Gp);
        float *G_h = gradients.first + k * B * H, *G_history_bias = gradients.weights.history_bias + k * D,
              *G_new_bias = gradients.weights.new_bias + k * H,
              *G_feature_bias = gradients.weights.feature_bias + k * D;
        std::fill(G_h, G_h + B * H, 0.0f);
        std::fill(G_history_bias, G_history_bias + D, 0.0f);
        std::fill(G_new_bias, G_new_bias + H, 0.0f);
        std::fill(G_feature_bias, G_feature_bias + D, 0.0f);
        for (long t = T - 1; t >= 0; t--) {
            const long at = (k * T + t) * B;
            const float *values = steps.values + at * D, *observed = steps.observed + at * D,
                        *decayed = kept.decayed + at * H, *history = trace.history + at * D;
            for (long b = 0; b < B; b++) {
                const float *reset = kept.reset_update + (at + b) * 2 * H, *update = reset + H;
                const long row = (at + b) * H;
                float *G_hidden_new = &joined[b * J + D], *G_reset = G_hidden_new + H, *G_update = G_reset + H,
                      *G_new = G_update + H;
                for (long i = 0; i < H; i += LANES) {
                    const long n = H - i;
                    vec g = load(G_h + b * H + i, n);
                    if (given.hidden) g += load(given.hidden + row + i, n);
                    const vec z = load(update + i, n), r = load(reset + i, n),
                              candidate = load(kept.new_gate + row + i, n),
                              through = g * z, G_n = (g - through) * (1.0f - candidate * candidate);
                    store(&through_update[b * H + i], through, n);
                    store(G_new + i, G_n, n);
                    store(G_update + i, (load(decayed + b * H + i, n) - candidate) * g * (z * (1.0f - z)), n);
                    store(G_reset + i, G_n * load(kept.hidden_new + row + i, n) * (r * (1.0f - r)), n);
                    store(G_hidden_new + i, G_n * r, n);
                    store(G_new_bias + i, load(G_new_bias + i, n) + G_n * r, n);
                }
            }
            multiply({&joined[D + H], J}, W_x.data(), Dp, to_completed.data(), Dp, B, G, Dp);
            for (long b = 0; b < B; b++)
                for (long i = 0; i < D; i += LANES) {
                    const long n = D - i, at_i = b * D + i, all_i = at * D + at_i;
                    const vec missing = 1.0f - load(observed + at_i, n), estimate = load(history + at_i, n);
                    vec g = missing * load(&to_completed[b * Dp + i], n);
                    if (given.combined) g += load(given.combined + all_i, n);
                    const vec to_feature = g * load(steps.weight + all_i, n);
                    store(&joined[b * J + i], g - to_feature, n);
                    store(&G_feature[b * Dp + i], to_feature, n);
                    store(gradients.weight + all_i, g * (load(kept.feature + all_i, n) - estimate), n);
                    store(&completed_by_history[at_i], load(values + at_i, n) + missing * estimate, n);
                    store(G_feature_bias + i, load(G_feature_bias + i, n) + to_feature, n);
                }
            multiply({G_feature.data(), Dp}, W_f.data(), Dp, to_history.data(), Dp, B, D, Dp);
            for (long b = 0; b < B; b++)
                for (long i = 0; i < D; i += LANES) {
                    const long n = D - i, at_i = b * D + i, all_i = at * D + at_i;
                    const vec back = load(&to_history[b * Dp + i], n);
                    vec g = load(&joined[b * J + i], n) + (1.0f - load(observed + at_i, n)) * back;
                    if (given.history) g += load(given.history + all_i, n);
                    store(&joined[b * J + i], g, n);
                    store(gradients.values + all_i, load(&to_completed[b * Dp + i], n) + back, n);
                    store(G_history_bias + i, load(G_history_bias + i, n) + g, n);
                }
            multiply({joined.data(), J}, W_h.data(), Hp, G_decayed.data(), Hp, B, O, Hp);
            for (long b = 0; b < B; b++)
                for (long i = 0; i < H; i += LANES) {
                    const long n = H - i, row = (at + b) * H;
                    const vec g = load(&G_decayed[b * Hp + i], n) + load(&through_update[b * H + i], n);
                    store(gradients.rate + row + i, -(g * load(decayed + b * H + i, n)), n);
                    store(G_h + b * H + i, g * bounded_exponential(-load(steps.rate + row + i, n)), n);
                }
            fill_inputs(values, observed, trace.combined + at * D, B, D, inputs.data());
            multiply({decayed, 1, H}, joined.data(), J, G_W_h.data(), Op, H, B, Op, true);
            multiply({completed_by_history.data(), 1, D}, G_feature.data(), Dp, G_W_f.data(), Dp, D, B, Dp, true);
            multiply({inputs.data(), 1, I}, &joined[D + H], J, G_W_i.data(), Gp, I, B, Gp, true);
        }
        copy_rows(G_W_h.data(), Op, H, O, gradients.weights.hidden + k * H * O);
        copy_rows(G_W_f.data(), Dp, D, D, gradients.weights.feature + k * D * D);
        copy_rows(G_W_i.data(), Gp, I, G, gradients.weights.input + k * I * G);
    }
}
