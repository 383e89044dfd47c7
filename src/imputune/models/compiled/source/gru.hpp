// A GRU over the hours of a series, as PyTorch's nn.GRU defines it, from a given first state to its last one.
//
// B stays, T hours, D variables, H hidden size, G = 3H gates in the order reset, update, new:
//
//     r = sigmoid(W_xr x + b_xr + W_hr h + b_hr), z likewise;  p = W_hn h + b_hn;  n = tanh(W_xn x + b_xn + r p)
//     h' = n + z (h - n)
//
// Backward, from the gradient g of h', with * marking a gate before its function:
//
//     g_n* = g (1 - z) (1 - n^2);  g_r* = g_n* p r (1 - r);  g_z* = g (h - n) z (1 - z);  g_p = g_n* r
//     g_h = z g + [g_r*, g_z*, g_p] W_h;  g_x = [g_r*, g_z*, g_n*] W_x

void gru_forward(const GruSizes& sizes, const float* series, const float* first, const GruWeights& weights,
                 const GruKept& kept) {
    const long B = sizes.B, T = sizes.T, D = sizes.D, H = sizes.H, G = 3 * H, P = padded(G);
    const auto W_x = transposed(weights.input, G, D), W_h = transposed(weights.hidden, G, H),
               b_x = filled(weights.input_bias, 1, G), b_h = filled(weights.hidden_bias, 1, G);
    std::vector<float> from_input(B * P), from_hidden(B * P);
    std::memcpy(kept.states, first, B * H * sizeof(float));
    for (long t = 0; t < T; t++) {
        const float* hidden = kept.states + t * B * H;
        float *next = kept.states + (t + 1) * B * H, *gates = kept.gates + t * B * G,
              *hidden_new = kept.hidden_new + t * B * H;
        for (long b = 0; b < B; b++) {
            std::memcpy(&from_input[b * P], b_x.data(), P * sizeof(float));
            std::memcpy(&from_hidden[b * P], b_h.data(), P * sizeof(float));
        }
        multiply({series + t * D, T * D}, W_x.data(), P, from_input.data(), P, B, D, P, true);
        multiply({hidden, H}, W_h.data(), P, from_hidden.data(), P, B, H, P, true);
        for (long b = 0; b < B; b++) {
            const float *x = &from_input[b * P], *h = &from_hidden[b * P];
            for (long i = 0; i < H; i += LANES) {
                const long n = H - i, at = b * H + i;
                const vec r = sigmoid(load(x + i, n) + load(h + i, n)),
                          z = sigmoid(load(x + H + i, n) + load(h + H + i, n)), of_hidden = load(h + 2 * H + i, n),
                          candidate = tangent(load(x + 2 * H + i, n) + r * of_hidden);
                store(gates + b * G + i, r, n);
                store(gates + b * G + H + i, z, n);
                store(gates + b * G + 2 * H + i, candidate, n);
                store(hidden_new + at, of_hidden, n);
                store(next + at, candidate + z * (load(hidden + at, n) - candidate), n);
            }
        }
    }
}

// G_series may be null.
void gru_backward(const GruSizes& sizes, const float* series, const GruWeights& weights, const GruKept& kept,
                  const float* given, float* G_series, float* G_first, const GruWeights& gradients) {
    const long B = sizes.B, T = sizes.T, D = sizes.D, H = sizes.H, G = 3 * H;
    const long Hp = padded(H), Dp = padded(D), P = padded(G);
    const auto W_x = filled(weights.input, G, D), W_h = filled(weights.hidden, G, H);
    std::vector<float> G_x(B * P), G_h(B * P), through(B * Hp), hidden_filled(B * Hp), values(B * Dp), G_W_x(G * Dp),
        G_W_h(G * Hp), G_b_x(P), G_b_h(P);
    std::memcpy(G_first, given, B * H * sizeof(float));  // now of the last state
    for (long t = T - 1; t >= 0; t--) {
        const float *hidden = kept.states + t * B * H, *gates = kept.gates + t * B * G,
                    *hidden_new = kept.hidden_new + t * B * H;
        for (long b = 0; b < B; b++) {
            float *x = &G_x[b * P], *h = &G_h[b * P];
            for (long i = 0; i < H; i += LANES) {
                const long n = H - i, at = b * H + i;
                const vec g = load(G_first + at, n), r = load(gates + b * G + i, n), z = load(gates + b * G + H + i, n),
                          candidate = load(gates + b * G + 2 * H + i, n), kept_part = g * z,
                          to_new = (g - kept_part) * (1.0f - candidate * candidate),
                          to_reset = to_new * load(hidden_new + at, n) * (r * (1.0f - r)),
                          to_update = (load(hidden + at, n) - candidate) * g * (z * (1.0f - z));
                store(x + i, to_reset, n);
                store(x + H + i, to_update, n);
                store(x + 2 * H + i, to_new, n);
                store(h + i, to_reset, n);
                store(h + H + i, to_update, n);
                store(h + 2 * H + i, to_new * r, n);
                store(&through[b * Hp + i], kept_part, n);
            }
            std::memcpy(&hidden_filled[b * Hp], hidden + b * H, H * sizeof(float));
            std::memcpy(&values[b * Dp], series + (b * T + t) * D, D * sizeof(float));
            for (long i = 0; i < P; i += LANES) {
                store(&G_b_x[i], load(&G_b_x[i]) + load(x + i));
                store(&G_b_h[i], load(&G_b_h[i]) + load(h + i));
            }
        }
        multiply({G_x.data(), 1, P}, values.data(), Dp, G_W_x.data(), Dp, G, B, Dp, true);
        multiply({G_h.data(), 1, P}, hidden_filled.data(), Hp, G_W_h.data(), Hp, G, B, Hp, true);
        multiply({G_h.data(), P}, W_h.data(), Hp, through.data(), Hp, B, G, Hp, true);
        copy_rows(through.data(), Hp, B, H, G_first);
        if (G_series) {
            multiply({G_x.data(), P}, W_x.data(), Dp, values.data(), Dp, B, G, Dp);
            for (long b = 0; b < B; b++) std::memcpy(G_series + (b * T + t) * D, &values[b * Dp], D * sizeof(float));
        }
    }
    copy_rows(G_W_x.data(), Dp, G, D, gradients.input);
    copy_rows(G_W_h.data(), Hp, G, H, gradients.hidden);
    copy_rows(G_b_x.data(), P, 1, G, gradients.input_bias);
    copy_rows(G_b_h.data(), P, 1, G, gradients.hidden_bias);
}
