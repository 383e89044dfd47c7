// What follows the attention in an encoder layer, up to a weighted sum over its tokens; ../layer.py has the equation.
//
// B stays, S tokens, D variables, C channels, F the width between the two linear maps; P and Q: C and F filled up.
// Backward, each step's gradient follows from the next one's by the chain rule; G_x is the gradient of x.

// The vector's first n numbers, the rest 0.
inline vec first_of(vec x, long n) {
    if (n >= LANES) return x;  // else the loop makes the compiler keep x in memory
    for (long i = n; i < LANES; i++) x[i] = 0;
    return x;
}

// The normal distribution function and its density, to 1e-7 (Abramowitz and Stegun, 7.1.26).
struct Normal {
    vec below, density;
};
inline Normal normal(vec x) {
    const vec size = x < 0.0f ? -x : x, bell = bounded_exponential(x * x * -0.5f),
              t = 1.0f / (1.0f + size * 0.23164190f);
    vec p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const vec tail = 0.5f * p * t * bell;
    return {x < 0.0f ? tail : 1.0f - tail, bell * 0.39894228f};
}

// Standardise a row of C numbers in place; return one over their standard deviation.
inline float standardise(float* row, long C) {
    vec total = {}, squares = {};
    for (long i = 0; i < C; i += LANES) total += load(row + i, C - i);
    const float mean = sum(total) / C;
    for (long i = 0; i < C; i += LANES) {
        const vec x = first_of(load(row + i) - mean, C - i);
        squares += x * x;
        store(row + i, x);
    }
    const float scale = 1.0f / std::sqrt(sum(squares) / C + 1e-5f);
    for (long i = 0; i < C; i += LANES) store(row + i, load(row + i) * scale);
    return scale;
}

// The gradient before `standardise` from that after it, in place.
inline void standardise_backward(float* G, const float* standardised, float scale, long C) {
    vec total = {}, along = {};
    for (long i = 0; i < C; i += LANES) {
        total += load(G + i);
        along += load(G + i) * load(standardised + i);
    }
    const float mean = sum(total) / C, slope = sum(along) / C;
    for (long i = 0; i < C; i += LANES)
        store(G + i, first_of(scale * (load(G + i) - mean - load(standardised + i) * slope), C - i));
}

// out = row * scale + shift
inline void scale_and_shift(const float* row, const float* scale, const float* shift, long P, float* out) {
    for (long i = 0; i < P; i += LANES) store(out + i, load(row + i) * load(scale + i) + load(shift + i));
}

void layer_forward(const LayerSizes& sizes, const float* tokens, const float* attended, const float* places,
                   const LayerWeights& weights, const LayerKept& kept, float* contracted) {
    const long B = sizes.B, S = sizes.S, D = sizes.D, C = sizes.C, F = sizes.F, P = padded(C), Q = padded(F);
    const auto project = transposed(weights.project, C, D), mix = transposed(weights.mix, C, C),
               widen = transposed(weights.widen, F, C), narrow = transposed(weights.narrow, C, F),
               scale1 = filled(weights.scale1, 1, C), shift1 = filled(weights.shift1, 1, C),
               scale2 = filled(weights.scale2, 1, C), shift2 = filled(weights.shift2, 1, C),
               bias1 = filled(weights.bias1, 1, F), bias2 = filled(weights.bias2, 1, C),
               places_filled = filled(places, S, C);
    std::vector<float> normed(S * P), active(S * Q), last(P);
    for (long b = 0; b < B; b++) {
        float *first = kept.first + b * S * P, *wide = kept.wide + b * S * Q, *second = kept.second + b * S * P;
        std::memcpy(first, places_filled.data(), S * P * sizeof(float));
        multiply({tokens + b * S * D, D}, project.data(), P, first, P, S, D, P, true);
        multiply({attended + b * C * S, 1, S}, mix.data(), P, first, P, S, C, P, true);
        for (long s = 0; s < S; s++) {
            kept.scales1[b * S + s] = standardise(first + s * P, C);
            scale_and_shift(first + s * P, scale1.data(), shift1.data(), P, &normed[s * P]);
            std::memcpy(wide + s * Q, bias1.data(), Q * sizeof(float));
            for (long i = 0; i < P; i += LANES) store(second + s * P + i, load(&normed[s * P + i]) + load(&bias2[i]));
        }
        multiply({normed.data(), P}, widen.data(), Q, wide, Q, S, C, Q, true);
        for (long i = 0; i < S * Q; i += LANES) {
            const vec x = load(wide + i);
            store(&active[i], x * normal(x).below);
        }
        multiply({active.data(), Q}, narrow.data(), P, second, P, S, F, P, true);
        std::vector<float> total(P);
        for (long s = 0; s < S; s++) {
            kept.scales2[b * S + s] = standardise(second + s * P, C);
            scale_and_shift(second + s * P, scale2.data(), shift2.data(), P, last.data());
            for (long i = 0; i < P; i += LANES)
                store(&total[i], load(&total[i]) + weights.contract[s] * load(&last[i]));
        }
        std::memcpy(contracted + b * C, total.data(), C * sizeof(float));
    }
}

void layer_backward(const LayerSizes& sizes, const float* tokens, const float* attended, const LayerWeights& weights,
                    const LayerKept& kept, const float* given, float* G_tokens, float* G_attended, float* G_places,
                    const LayerWeights& gradients) {
    const long B = sizes.B, S = sizes.S, D = sizes.D, C = sizes.C, F = sizes.F;
    const long P = padded(C), Q = padded(F), X = padded(D);
    const auto project = filled(weights.project, C, D), mix = filled(weights.mix, C, C),
               widen = filled(weights.widen, F, C),
               narrow = filled(weights.narrow, C, F), scale1 = filled(weights.scale1, 1, C),
               shift1 = filled(weights.shift1, 1, C), scale2 = filled(weights.scale2, 1, C),
               shift2 = filled(weights.shift2, 1, C);
    std::vector<float> G_project(C * X), G_mix(C * P), G_widen(F * P), G_narrow(C * Q), G_scale1(P), G_shift1(P),
        G_scale2(P), G_shift2(P), G_bias1(Q), G_bias2(P), G_places_filled(S * P), G(P), normed(S * P), active(S * Q),
        G_second(S * P),
        G_wide(S * Q), attended_by_token(S * P), G_tokens_filled(S * X), G_attended_by_token(S * P);
    std::fill(gradients.contract, gradients.contract + S, 0.0f);
    for (long b = 0; b < B; b++) {
        const float *first = kept.first + b * S * P, *wide = kept.wide + b * S * Q, *second = kept.second + b * S * P;
        std::memcpy(G.data(), given + b * C, C * sizeof(float));
        for (long s = 0; s < S; s++) {
            vec along = {};
            for (long i = 0; i < P; i += LANES) {
                const vec g = load(&G[i]) * weights.contract[s], x = load(second + s * P + i), scale = load(&scale2[i]);
                along += load(&G[i]) * (x * scale + load(&shift2[i]));
                store(&G_scale2[i], load(&G_scale2[i]) + g * x);
                store(&G_shift2[i], load(&G_shift2[i]) + g);
                store(&G_second[s * P + i], g * scale);
            }
            gradients.contract[s] += sum(along);
            standardise_backward(&G_second[s * P], second + s * P, kept.scales2[b * S + s], C);
            for (long i = 0; i < P; i += LANES) store(&G_bias2[i], load(&G_bias2[i]) + load(&G_second[s * P + i]));
            scale_and_shift(first + s * P, scale1.data(), shift1.data(), P, &normed[s * P]);
        }
        multiply({G_second.data(), P}, narrow.data(), Q, G_wide.data(), Q, S, C, Q);
        for (long s = 0; s < S; s++)
            for (long i = 0; i < Q; i += LANES) {
                const vec x = load(wide + s * Q + i);
                const Normal at = normal(x);
                const vec g = load(&G_wide[s * Q + i]) * (at.below + x * at.density);
                store(&active[s * Q + i], x * at.below);
                store(&G_wide[s * Q + i], g);
                store(&G_bias1[i], load(&G_bias1[i]) + g);
            }
        multiply({G_second.data(), 1, P}, active.data(), Q, G_narrow.data(), Q, C, S, Q, true);
        multiply({G_wide.data(), 1, Q}, normed.data(), P, G_widen.data(), P, F, S, P, true);
        multiply({G_wide.data(), Q}, widen.data(), P, G_second.data(), P, S, F, P, true);  // now of `normed`
        for (long s = 0; s < S; s++) {
            for (long i = 0; i < P; i += LANES) {
                const vec g = load(&G_second[s * P + i]);
                store(&G_scale1[i], load(&G_scale1[i]) + g * load(first + s * P + i));
                store(&G_shift1[i], load(&G_shift1[i]) + g);
                store(&G_second[s * P + i], g * load(&scale1[i]));
            }
            standardise_backward(&G_second[s * P], first + s * P, kept.scales1[b * S + s], C);
        }
        for (long i = 0; i < S * P; i += LANES)
            store(&G_places_filled[i], load(&G_places_filled[i]) + load(&G_second[i]));
        const auto tokens_filled = filled(tokens + b * S * D, S, D);
        transpose(attended + b * C * S, S, C, S, attended_by_token.data(), P);
        multiply({G_second.data(), 1, P}, tokens_filled.data(), X, G_project.data(), X, C, S, X, true);
        multiply({G_second.data(), 1, P}, attended_by_token.data(), P, G_mix.data(), P, C, S, P, true);
        multiply({G_second.data(), P}, project.data(), X, G_tokens_filled.data(), X, S, C, X);
        multiply({G_second.data(), P}, mix.data(), P, G_attended_by_token.data(), P, S, C, P);
        copy_rows(G_tokens_filled.data(), X, S, D, G_tokens + b * S * D);
        transpose(G_attended_by_token.data(), P, S, C, G_attended + b * C * S, S);
    }
    copy_rows(G_places_filled.data(), P, S, C, G_places);
    copy_rows(G_project.data(), X, C, D, gradients.project);
    copy_rows(G_mix.data(), P, C, C, gradients.mix);
    copy_rows(G_widen.data(), P, F, C, gradients.widen);
    copy_rows(G_narrow.data(), Q, C, F, gradients.narrow);
    copy_rows(G_scale1.data(), P, 1, C, gradients.scale1);
    copy_rows(G_shift1.data(), P, 1, C, gradients.shift1);
    copy_rows(G_scale2.data(), P, 1, C, gradients.scale2);
    copy_rows(G_shift2.data(), P, 1, C, gradients.shift2);
    copy_rows(G_bias1.data(), Q, 1, F, gradients.bias1);
    copy_rows(G_bias2.data(), P, 1, C, gradients.bias2);
}
