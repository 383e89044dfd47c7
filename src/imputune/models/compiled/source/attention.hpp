// Attention of imputune/models/attention.py, whose docstring has the equations of both passes.
//
// B stays, A heads, d channels of a head, C = A * d, S tokens, P: S filled up to a multiple of 16, D variables.

// Turn the scores in V vectors of columns into exponentials; keep each column's highest score, and 1 / its sum. One
// vector's maxima and sums depend on each other; those of several vectors are computed at the same time.
template <int V>
inline void exponentials(float* scores, long S, float* shift, float* inverse) {
    vec most[V], total[V] = {};
    for (int v = 0; v < V; v++) most[v] = load(scores + v * LANES);
    for (long s = 1; s < S; s++)  // a NaN may be lost here, but its exponential makes `total` NaN
        for (int v = 0; v < V; v++) most[v] = larger(most[v], load(scores + s * QUERIES + v * LANES));
    for (long s = 0; s < S; s++)
        for (int v = 0; v < V; v++) {
            float* at = scores + s * QUERIES + v * LANES;
            const vec exponential = bounded_exponential(load(at) - most[v]);
            store(at, exponential);
            total[v] += exponential;
        }
    for (int v = 0; v < V; v++) {
        store(shift + v * LANES, most[v]);
        store(inverse + v * LANES, 1.0f / total[v]);
    }
}

// shifts (2, B, A, P): each query's highest score, then 1 / the sum of its exponentials.
// Scores and weights have a row for each key and a column for each query, so no sum runs across a vector.
template <int d>
void attention_forward(const AttentionSizes& sizes, const float* tokens, const float* maps, const float* places,
                       float* kept, float* shifts, float* attended) {
    const long B = sizes.B, A = sizes.A, S = sizes.S, D = sizes.D, P = sizes.P, C = A * d;
    std::vector<float> tokens_by_variable(D * P), weights(S * QUERIES), out(d * QUERIES);
    for (long b = 0; b < B; b++) {
        transpose(tokens + b * S * D, D, S, D, tokens_by_variable.data(), P);
        for (long p = 0; p < 3; p++) {
            float* mapped = kept + (p * B + b) * C * P;
            for (long c = 0; c < C; c++) {
                std::memcpy(mapped + c * P, places + (p * C + c) * S, S * sizeof(float));
                std::fill(mapped + c * P + S, mapped + (c + 1) * P, 0.0f);
            }
            multiply({maps + p * C * D, D}, tokens_by_variable.data(), P, mapped, P, C, D, P, true);
        }
        for (long a = 0; a < A; a++) {
            const float *Q = kept + (b * C + a * d) * P, *K = Q + B * C * P, *V = K + B * C * P;
            float *shift = shifts + (b * A + a) * P, *inverse = shift + B * A * P;
            for (long start = 0; start < P; start += QUERIES) {
                const long queries = std::min(QUERIES, P - start);
                multiply({K, 1, P}, Q + start, P, weights.data(), QUERIES, S, d, queries);
                if (queries == QUERIES)
                    exponentials<QUERIES / LANES>(weights.data(), S, shift + start, inverse + start);
                else
                    for (long j = 0; j < queries; j += LANES)
                        exponentials<1>(&weights[j], S, shift + start + j, inverse + start + j);
                multiply({V, P}, weights.data(), QUERIES, out.data(), QUERIES, d, S, queries);
                for (int c = 0; c < d; c++)
                    for (long j = 0; j < queries && start + j < S; j += LANES)
                        store(attended + (b * C + a * d + c) * S + start + j,
                              load(&out[c * QUERIES + j]) * load(inverse + start + j), S - start - j);
            }
        }
    }
}

// Here scores and weights have a row for each query, so that two of three products need no transposing.
template <int d>
void attention_backward(const AttentionSizes& sizes, const float* tokens, const float* maps, const float* kept,
                        const float* shifts, const float* attended, const float* given, float* G_tokens, float* G_maps,
                        float* G_places) {
    const long B = sizes.B, A = sizes.A, S = sizes.S, D = sizes.D, P = sizes.P, C = A * d, W = padded(d), X = padded(D);
    std::vector<float> K(P * W), weights(QUERIES * P), G_z(QUERIES * P), G_Q(QUERIES * W), delta(S), mapped(3 * C * P),
        G_maps_filled(3 * C * X), G_tokens_filled(S * X);
    const auto maps_filled = filled(maps, 3 * C, D);
    std::fill(G_places, G_places + 3 * C * S, 0.0f);
    for (long b = 0; b < B; b++) {
        std::fill(mapped.begin(), mapped.end(), 0.0f);
        for (long a = 0; a < A; a++) {
            const float *queries = kept + (b * C + a * d) * P, *keys = queries + B * C * P, *values = keys + B * C * P;
            const float *shift = shifts + (b * A + a) * P, *inverse = shift + B * A * P;
            const float *G = given + (b * C + a * d) * S, *out = attended + (b * C + a * d) * S;
            transpose(keys, P, d, P, K.data(), W);
            std::fill(delta.begin(), delta.end(), 0.0f);
            for (long c = 0; c < d; c++)
                for (long s = 0; s < S; s++) delta[s] += G[c * S + s] * out[c * S + s];
            float *G_queries = &mapped[a * d * P], *G_keys = G_queries + C * P, *G_values = G_keys + C * P;
            for (long start = 0; start < S; start += QUERIES) {
                const long rows = std::min(QUERIES, S - start);
                multiply({queries + start, 1, P}, keys, P, weights.data(), P, rows, d, P);
                multiply({G + start, 1, S}, values, P, G_z.data(), P, rows, d, P);
                for (long s = 0; s < rows; s++)
                    for (long j = 0; j < P; j += LANES) {
                        const vec weight =
                            bounded_exponential(load(&weights[s * P + j]) - shift[start + s]) * inverse[start + s];
                        store(&weights[s * P + j], weight);
                        store(&G_z[s * P + j], weight * (load(&G_z[s * P + j]) - delta[start + s]));
                    }
                multiply({G + start, S}, weights.data(), P, G_values, P, d, rows, P, true);
                multiply({queries + start, P}, G_z.data(), P, G_keys, P, d, rows, P, true);
                multiply({G_z.data(), P}, K.data(), W, G_Q.data(), W, rows, S, W);
                transpose(G_Q.data(), W, rows, d, G_queries + start, P);
            }
        }
        for (long c = 0; c < 3 * C; c++)
            for (long s = 0; s < S; s++) G_places[c * S + s] += mapped[c * P + s];
        const auto tokens_filled = filled(tokens + b * S * D, S, D);
        multiply({mapped.data(), P}, tokens_filled.data(), X, G_maps_filled.data(), X, 3 * C, S, X, true);
        multiply({mapped.data(), 1, P}, maps_filled.data(), X, G_tokens_filled.data(), X, S, 3 * C, X);
        copy_rows(G_tokens_filled.data(), X, S, D, G_tokens + b * S * D);
    }
    copy_rows(G_maps_filled.data(), X, 3 * C, D, G_maps);
}
