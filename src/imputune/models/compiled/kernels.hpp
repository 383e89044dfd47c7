// CSAI's attention and recurrence for one instruction set; kernels.cpp includes this file once for each.
//
// SET: the namespace. LANES: numbers in a vector. ROWS: rows of a product's tile, so that its sums stay in registers.
// Equations and letters are those of imputune/models/attention.py and imputune/models/fast_recurrence.py. Matrices lie
// row by row; `stride` is the distance between rows.

namespace SET {

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int ivec __attribute__((vector_size(LANES * 4)));
constexpr int COLUMNS = 3;     // of a tile, in vectors
constexpr long QUERIES = 48;  // whose weights are computed at a time, so that they stay in the cache

inline vec all(float x) { return vec{} + x; }

// Read n numbers, the rest of the vector 0; write the first n.
inline vec load(const float* from, long n = LANES) {
    vec x = {};
    if (n >= LANES) std::memcpy(&x, from, sizeof x);
    else std::memcpy(&x, from, n * sizeof(float));
    return x;
}

inline void store(float* to, vec x, long n = LANES) {
    if (n >= LANES) std::memcpy(to, &x, sizeof x);
    else std::memcpy(to, &x, n * sizeof(float));
}

inline long padded(long n) { return (n + LANES - 1) / LANES * LANES; }

// Add up N numbers, half and half.
template <int N>
inline float sum_of(const float* numbers) {
    typedef float half __attribute__((vector_size(N * 2)));
    half low, high;
    std::memcpy(&low, numbers, sizeof low);
    std::memcpy(&high, numbers + N / 2, sizeof high);
    low += high;
    float left[N / 2];
    std::memcpy(left, &low, sizeof low);
    return sum_of<N / 2>(left);
}
template <>
inline float sum_of<1>(const float* numbers) {
    return *numbers;
}

inline float sum(vec x) {
    float numbers[LANES];
    std::memcpy(numbers, &x, sizeof x);
    return sum_of<LANES>(numbers);
}

// e^x for x up to 88; 0 below -87. x log2(e) = n + f with an integer n: adding 1.5 * 2^23 rounds to n, and leaves n in the
// lowest bits. The polynomial is the best of its degree for 2^f on |f| <= 1/2; its error is 1e-7 of the value.
inline vec bounded_exponential(vec x) {
    const float log2_e = 1.44269504f, rounding = 12582912.0f;
    const vec shifted = x * log2_e + rounding, f = x * log2_e - (shifted - rounding);
    vec p = f * 1.326472731e-3f + 9.671512991e-3f;
    p = p * f + 5.550733581e-2f;
    p = p * f + 2.402224243e-1f;
    p = p * f + 6.931470037e-1f;
    p = p * f + 1.0f;
    ivec bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + (127 << 23);
    vec scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return x < -87.0f ? vec{} : p * scale;
}

inline vec exponential(vec x) { return bounded_exponential(x > 88.0f ? all(88.0f) : x); }

inline vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }
inline vec tangent(vec x) { return 1.0f - 2.0f / (1.0f + exponential(2.0f * x)); }

// A matrix's first number, and the distance to the next row and to the next column.
struct Matrix {
    const float* at;
    long row, column = 1;
    Matrix from_row(long r) const { return {at + r * row, row, column}; }
};

// out = left * right (+ out, if `adds`) for R rows and V vectors of columns.
template <int R, int V>
inline void tile(Matrix left, const float* right, long right_stride, float* out, long out_stride, long inner, bool adds) {
    vec sums[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sums[r][v] = adds ? load(out + r * out_stride + v * LANES) : vec{};
    for (long k = 0; k < inner; k++) {
        vec columns[V];
        for (int v = 0; v < V; v++) columns[v] = load(right + k * right_stride + v * LANES);
        for (int r = 0; r < R; r++) {
            const float number = left.at[r * left.row + k * left.column];
            for (int v = 0; v < V; v++) sums[r][v] += number * columns[v];
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) store(out + r * out_stride + v * LANES, sums[r][v]);
}

template <int V>
inline void tiles(Matrix left, const float* right, long right_stride, float* out, long out_stride, long rows, long inner,
                  bool adds) {
    long r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        tile<ROWS, V>(left.from_row(r), right, right_stride, out + r * out_stride, out_stride, inner, adds);
    for (; r < rows; r++)
        tile<1, V>(left.from_row(r), right, right_stride, out + r * out_stride, out_stride, inner, adds);
}

// out = left * right (+ out) for whole vectors of columns.
inline void multiply(Matrix left, const float* right, long right_stride, float* out, long out_stride, long rows,
                     long inner, long columns, bool adds = false) {
    long c = 0;
    for (; c + COLUMNS * LANES <= columns; c += COLUMNS * LANES)
        tiles<COLUMNS>(left, right + c, right_stride, out + c, out_stride, rows, inner, adds);
    for (; c + LANES <= columns; c += LANES)
        tiles<1>(left, right + c, right_stride, out + c, out_stride, rows, inner, adds);
}

// A matrix with its rows filled up with zeros to whole vectors.
inline std::vector<float> filled(const float* matrix, long rows, long columns) {
    const long stride = padded(columns);
    std::vector<float> copy(rows * stride);
    for (long r = 0; r < rows; r++) std::memcpy(&copy[r * stride], matrix + r * columns, columns * sizeof(float));
    return copy;
}

inline void copy_rows(const float* from, long stride, long rows, long columns, float* to) {
    for (long r = 0; r < rows; r++) std::memcpy(to + r * columns, from + r * stride, columns * sizeof(float));
}

// Rows to columns; `stride` is that of the result.
inline void transpose(const float* from, long from_stride, long rows, long columns, float* to, long stride) {
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c++) to[c * stride + r] = from[r * from_stride + c];
}

// The transposed matrix, its rows filled up with zeros to whole vectors.
inline std::vector<float> transposed(const float* matrix, long rows, long columns) {
    std::vector<float> copy(columns * padded(rows));
    transpose(matrix, columns, rows, columns, copy.data(), padded(rows));
    return copy;
}

// Scores and weights have a row for each key and a column for each query here, so nothing is added up across a vector.
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
            float* shift = shifts + (b * A + a) * P;
            for (long start = 0; start < P; start += QUERIES) {
                const long queries = std::min(QUERIES, P - start);
                multiply({K, 1, P}, Q + start, P, weights.data(), QUERIES, S, d, queries);
                vec inverse[QUERIES / LANES];
                for (long j = 0; j < queries; j += LANES) {
                    vec most = load(&weights[j]), total = {};
                    for (long s = 1; s < S; s++) {
                        const vec z = load(&weights[s * QUERIES + j]);
                        most = z < most ? most : z;  // what is not a number stays
                    }
                    for (long s = 0; s < S; s++) {
                        const vec weight = bounded_exponential(load(&weights[s * QUERIES + j]) - most);
                        store(&weights[s * QUERIES + j], weight);
                        total += weight;
                    }
                    inverse[j / LANES] = 1.0f / total;
                    vec logs;
                    for (int i = 0; i < LANES; i++) logs[i] = std::log(total[i]);
                    store(shift + start + j, most + logs);
                }
                multiply({V, P}, weights.data(), QUERIES, out.data(), QUERIES, d, S, queries);
                for (int c = 0; c < d; c++)
                    for (long j = 0; j < queries && start + j < S; j += LANES)
                        store(attended + (b * C + a * d + c) * S + start + j,
                              load(&out[c * QUERIES + j]) * inverse[j / LANES], S - start - j);
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
        mapped_by_token(S * 3 * C), G_maps_filled(3 * C * X), G_tokens_filled(S * X);
    const auto maps_filled = filled(maps, 3 * C, D);
    std::fill(G_places, G_places + 3 * C * S, 0.0f);
    for (long b = 0; b < B; b++) {
        std::fill(mapped.begin(), mapped.end(), 0.0f);
        for (long a = 0; a < A; a++) {
            const float *queries = kept + (b * C + a * d) * P, *keys = queries + B * C * P, *values = keys + B * C * P;
            const float *shift = shifts + (b * A + a) * P, *G = given + (b * C + a * d) * S,
                        *out = attended + (b * C + a * d) * S;
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
                        const vec weight = bounded_exponential(load(&weights[s * P + j]) - shift[start + s]);
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
        transpose(mapped.data(), P, 3 * C, S, mapped_by_token.data(), 3 * C);
        multiply({mapped_by_token.data(), 3 * C}, maps_filled.data(), X, G_tokens_filled.data(), X, S, 3 * C, X);
        copy_rows(G_tokens_filled.data(), X, S, D, G_tokens + b * S * D);
    }
    copy_rows(G_maps_filled.data(), X, 3 * C, D, G_maps);
}

// The vector's first n numbers, the rest 0.
inline vec first_of(vec x, long n) {
    for (long i = n; i < LANES; i++) x[i] = 0;
    return x;
}

// The normal distribution function and its density, to 1e-7 (Abramowitz and Stegun, 7.1.26).
struct Normal {
    vec below, density;
};
inline Normal normal(vec x) {
    const vec size = x < 0.0f ? -x : x, bell = bounded_exponential(x * x * -0.5f), t = 1.0f / (1.0f + size * 0.23164190f);
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

// What follows the attention in an encoder layer, up to a weighted sum over its tokens; P and Q: C and F filled up.
void layer_forward(const LayerSizes& sizes, const float* tokens, const float* attended, const float* places,
                   const LayerWeights& weights, const LayerKept& kept, float* contracted) {
    const long B = sizes.B, S = sizes.S, D = sizes.D, C = sizes.C, F = sizes.F, P = padded(C), Q = padded(F);
    const auto project = transposed(weights.project, C, D), mix = transposed(weights.mix, C, C),
               widen = transposed(weights.widen, F, C), narrow = transposed(weights.narrow, C, F),
               scale1 = filled(weights.scale1, 1, C), shift1 = filled(weights.shift1, 1, C),
               scale2 = filled(weights.scale2, 1, C), shift2 = filled(weights.shift2, 1, C),
               bias1 = filled(weights.bias1, 1, F), bias2 = filled(weights.bias2, 1, C), places_filled = filled(places, S, C);
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
            for (long i = 0; i < P; i += LANES) store(&total[i], load(&total[i]) + weights.contract[s] * load(&last[i]));
        }
        std::memcpy(contracted + b * C, total.data(), C * sizeof(float));
    }
}

void layer_backward(const LayerSizes& sizes, const float* tokens, const float* attended, const LayerWeights& weights,
                    const LayerKept& kept, const float* given, float* G_tokens, float* G_attended, float* G_places,
                    const LayerWeights& gradients) {
    const long B = sizes.B, S = sizes.S, D = sizes.D, C = sizes.C, F = sizes.F;
    const long P = padded(C), Q = padded(F), X = padded(D);
    const auto project = filled(weights.project, C, D), mix = filled(weights.mix, C, C), widen = filled(weights.widen, F, C),
               narrow = filled(weights.narrow, C, F), scale1 = filled(weights.scale1, 1, C),
               shift1 = filled(weights.shift1, 1, C), scale2 = filled(weights.scale2, 1, C),
               shift2 = filled(weights.shift2, 1, C);
    std::vector<float> G_project(C * X), G_mix(C * P), G_widen(F * P), G_narrow(C * Q), G_scale1(P), G_shift1(P), G_scale2(P),
        G_shift2(P), G_bias1(Q), G_bias2(P), G_places_filled(S * P), G(P), normed(S * P), active(S * Q), G_second(S * P),
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
        for (long i = 0; i < S * P; i += LANES) store(&G_places_filled[i], load(&G_places_filled[i]) + load(&G_second[i]));
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

// What the gates read in an hour: [completed values, observed, 1].
inline void fill_inputs(const float* values, const float* observed, const float* combined, long B, long D, float* inputs) {
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
            float *decayed = kept.decayed + at * H, *history = trace.history + at * D, *combined = trace.combined + at * D;
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
                    store(kept.hidden_new + (at + b) * H + i, load(&p[b * Op + D + i], H - i) + load(b_n + i, H - i), H - i);
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
                              candidate = tangent(load(from_inputs + 2 * H + i, n) + r * load(kept.hidden_new + row + i, n));
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

// `joined`, B rows of an hour: gradients of [history, hidden_new, reset, update, new], the gates before their functions.
void recurrence_backward(const RecurrenceSizes& sizes, const Steps& steps, const Weights& by_output, const Trace& trace,
                         const Kept& kept, const Trace& given, const Gradients& gradients) {
    const long K = sizes.K, T = sizes.T, B = sizes.B, D = sizes.D, H = sizes.H;
    const long O = D + 3 * H, I = 2 * D + 1, G = 3 * H, Op = padded(O), Gp = padded(G), Hp = padded(H), Dp = padded(D);
    const long J = D + 4 * H + LANES;  // whole vectors may be read from every part
    std::vector<float> joined(B * J), through_update(B * H), to_completed(B * Dp), G_feature(B * Dp), to_history(B * Dp),
        G_decayed(B * Hp), inputs(B * I), completed_by_history(B * D);
    for (long k = 0; k < K; k++) {
        const auto W_h = filled(by_output.hidden + k * O * H, O, H), W_f = filled(by_output.feature + k * D * D, D, D),
                   W_x = filled(by_output.input + k * G * D, G, D);
        std::vector<float> G_W_h(H * Op), G_W_f(D * Dp), G_W_i(I * Gp);
        float *G_h = gradients.first + k * B * H, *G_history_bias = gradients.weights.history_bias + k * D,
              *G_new_bias = gradients.weights.new_bias + k * H, *G_feature_bias = gradients.weights.feature_bias + k * D;
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
                    const vec z = load(update + i, n), r = load(reset + i, n), candidate = load(kept.new_gate + row + i, n),
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

// The states of a GRU as PyTorch's nn.GRU defines it, the given first one among them.
void gru_forward(const GruSizes& sizes, const float* series, const float* first, const GruWeights& weights,
                 const GruKept& kept) {
    const long B = sizes.B, T = sizes.T, D = sizes.D, H = sizes.H, G = 3 * H, P = padded(G);
    const auto W_x = transposed(weights.input, G, D), W_h = transposed(weights.hidden, G, H),
               b_x = filled(weights.input_bias, 1, G), b_h = filled(weights.hidden_bias, 1, G);
    std::vector<float> from_input(B * P), from_hidden(B * P);
    std::memcpy(kept.states, first, B * H * sizeof(float));
    for (long t = 0; t < T; t++) {
        const float* hidden = kept.states + t * B * H;
        float *next = kept.states + (t + 1) * B * H, *gates = kept.gates + t * B * G, *hidden_new = kept.hidden_new + t * B * H;
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
                const vec r = sigmoid(load(x + i, n) + load(h + i, n)), z = sigmoid(load(x + H + i, n) + load(h + H + i, n)),
                          of_hidden = load(h + 2 * H + i, n), candidate = tangent(load(x + 2 * H + i, n) + r * of_hidden);
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
    const long B = sizes.B, T = sizes.T, D = sizes.D, H = sizes.H, G = 3 * H, Hp = padded(H), Dp = padded(D), P = padded(G);
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

}  // namespace SET
