// CSAI's attention and recurrence for one instruction set; kernels.cpp includes this file once for each.
//
// SET: the namespace. LANES: numbers in a vector. ROWS: rows of a product's tile, so that its sums stay in registers.
// Equations and letters are those of imputune/models/attention.py and imputune/models/fast_recurrence.py. Matrices lie
// row by row; `stride` is the distance between rows.

namespace SET {

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int ivec __attribute__((vector_size(LANES * 4)));
constexpr int COLUMNS = 3;     // of a tile, in vectors
constexpr long QUERIES = 32;  // whose weights are computed at a time, so that they stay in the cache

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

inline float sum(vec x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

// e^x by Cody and Waite's reduction to |r| <= log(2) / 2 and a polynomial; 0 below -87, at most e^88.
inline vec exponential(vec x) {
    const vec least = all(-87.0f), most = all(88.0f);
    const ivec is_small = x < least;
    x = x > most ? most : x;
    x = is_small ? least : x;
    const vec magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const vec n = (x * 1.44269504088896341f + magic) - magic;
    vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    vec scale;
    std::memcpy(&scale, &power, sizeof scale);
    return is_small ? vec{} : p * scale;
}

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

inline float largest_of(vec x) {
    float numbers[LANES];
    store(numbers, x);
    float most = numbers[0];
    for (int i = 1; i < LANES; i++) most = numbers[i] > most ? numbers[i] : most;
    return most;
}

template <int d>
void attention_forward(const AttentionSizes& sizes, const float* tokens, const float* maps, const float* places,
                       float* kept, float* log_sums, float* attended) {
    const long B = sizes.B, A = sizes.A, S = sizes.S, D = sizes.D, P = sizes.P, C = A * d, W = padded(d);
    std::vector<float> tokens_by_variable(D * P), weights(QUERIES * P), V(P * W), out(QUERIES * W), excluded(P);
    std::fill(&excluded[0] + S, &excluded[0] + P, -3e38f);
    for (long b = 0; b < B; b++) {
        transpose(tokens + b * S * D, D, S, D, tokens_by_variable.data(), P);
        for (long p = 0; p < 3; p++) {
            float* mapped = kept + (p * B + b) * C * P;
            for (long c = 0; c < C; c++) std::memcpy(mapped + c * P, places + (p * C + c) * S, S * sizeof(float));
            for (long c = 0; c < C; c++) std::fill(mapped + c * P + S, mapped + (c + 1) * P, 0.0f);
            multiply({maps + p * C * D, D}, tokens_by_variable.data(), P, mapped, P, C, D, P, true);
        }
        for (long a = 0; a < A; a++) {
            const float *Q = kept + (b * C + a * d) * P, *K = Q + B * C * P;
            transpose(K + B * C * P, P, d, P, V.data(), W);
            float* logs = log_sums + (b * A + a) * S;
            for (long start = 0; start < S; start += QUERIES) {
                const long queries = std::min(QUERIES, S - start);
                float inverse[QUERIES];
                for (long s = 0; s < queries; s++) {
                    float* row = &weights[s * P];
                    vec largest = all(-3e38f), total = {};
                    for (long j = 0; j < P; j += LANES) {
                        vec z = load(&excluded[j]);
                        for (int c = 0; c < d; c++) z += Q[c * P + start + s] * load(K + c * P + j);
                        store(row + j, z);
                        largest = z > largest ? z : largest;
                    }
                    const float most = largest_of(largest);
                    for (long j = 0; j < P; j += LANES) {
                        const vec weight = exponential(load(row + j) - most);
                        store(row + j, weight);
                        total += weight;
                    }
                    const float whole = sum(total);
                    inverse[s] = 1.0f / whole;
                    logs[start + s] = most + std::log(whole);
                }
                multiply({weights.data(), P}, V.data(), W, out.data(), W, queries, P, W);
                for (int c = 0; c < d; c++)
                    for (long s = 0; s < queries; s++)
                        attended[(b * C + a * d + c) * S + start + s] = out[s * W + c] * inverse[s];
            }
        }
    }
}

template <int d>
void attention_backward(const AttentionSizes& sizes, const float* tokens, const float* maps, const float* kept,
                        const float* log_sums, const float* attended, const float* given, float* G_tokens,
                        float* G_maps, float* G_places) {
    const long B = sizes.B, A = sizes.A, S = sizes.S, D = sizes.D, P = sizes.P, C = A * d, W = padded(d), X = padded(D);
    std::vector<float> Q(S * d), G(S * d), K(P * W), G_Z(S * P), G_Q(S * W), delta(S), mapped(3 * C * P),
        mapped_by_token(S * 3 * C), G_maps_filled(3 * C * X), G_tokens_filled(S * X);
    const auto maps_filled = filled(maps, 3 * C, D);
    std::fill(G_places, G_places + 3 * C * S, 0.0f);
    for (long b = 0; b < B; b++) {
        for (long a = 0; a < A; a++) {
            const float *queries = kept + (b * C + a * d) * P, *keys = queries + B * C * P, *values = keys + B * C * P;
            const float *logs = log_sums + (b * A + a) * S, *G_head = given + (b * C + a * d) * S,
                        *out = attended + (b * C + a * d) * S;
            transpose(queries, P, d, S, Q.data(), d);
            transpose(G_head, S, d, S, G.data(), d);
            transpose(keys, P, d, P, K.data(), W);
            std::fill(delta.begin(), delta.end(), 0.0f);
            for (long c = 0; c < d; c++)
                for (long s = 0; s < S; s++) delta[s] += G_head[c * S + s] * out[c * S + s];
            float *G_queries = &mapped[a * d * P], *G_keys = G_queries + C * P, *G_values = G_keys + C * P;
            for (long j = 0; j < P; j += LANES) {
                vec key[d], value[d], G_key[d] = {}, G_value[d] = {};
                for (int c = 0; c < d; c++) {
                    key[c] = load(keys + c * P + j);
                    value[c] = load(values + c * P + j);
                }
                for (long s = 0; s < S; s++) {
                    const float *query = &Q[s * d], *g = &G[s * d];
                    vec z = all(-logs[s]), to_weight = all(-delta[s]);
                    for (int c = 0; c < d; c++) z += query[c] * key[c];
                    for (int c = 0; c < d; c++) to_weight += g[c] * value[c];
                    const vec weight = exponential(z), G_z = weight * to_weight;
                    for (int c = 0; c < d; c++) G_value[c] += g[c] * weight;
                    for (int c = 0; c < d; c++) G_key[c] += query[c] * G_z;
                    store(&G_Z[s * P + j], G_z);
                }
                for (int c = 0; c < d; c++) {  // beyond S they are not read
                    store(G_keys + c * P + j, G_key[c]);
                    store(G_values + c * P + j, G_value[c]);
                }
            }
            multiply({G_Z.data(), P}, K.data(), W, G_Q.data(), W, S, S, W);
            transpose(G_Q.data(), W, S, d, G_queries, P);
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
                store(decayed + i, load(hidden + i, n) * exponential(-load(rate + i, n)), n);
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
void recurrence_backward(const RecurrenceSizes& sizes, const Steps& steps, const Weights& transposed, const Trace& trace,
                         const Kept& kept, const Trace& given, const Gradients& gradients) {
    const long K = sizes.K, T = sizes.T, B = sizes.B, D = sizes.D, H = sizes.H;
    const long O = D + 3 * H, I = 2 * D + 1, G = 3 * H, Op = padded(O), Gp = padded(G), Hp = padded(H), Dp = padded(D);
    const long J = D + 4 * H + LANES;  // whole vectors may be read from every part
    std::vector<float> joined(B * J), through_update(B * H), to_completed(B * Dp), G_feature(B * Dp), to_history(B * Dp),
        G_decayed(B * Hp), inputs(B * I), completed_by_history(B * D);
    for (long k = 0; k < K; k++) {
        const auto W_h = filled(transposed.hidden + k * O * H, O, H), W_f = filled(transposed.feature + k * D * D, D, D),
                   W_x = filled(transposed.input + k * G * D, G, D);
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
                    store(G_h + b * H + i, g * exponential(-load(steps.rate + row + i, n)), n);
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

}  // namespace SET
