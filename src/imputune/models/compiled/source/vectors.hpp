// Vectors of numbers, products of matrices, and the functions of networks, for one instruction set.
//
// Matrices lie row by row; a stride is the distance between rows. "Filled up" rows are as long as whole vectors, with
// zeros at their ends.

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int ivec __attribute__((vector_size(LANES * 4)));
constexpr long QUERIES = 48;  // whose weights are computed at a time, so that they stay in the cache

inline vec all(float x) { return vec{} + x; }

// Read or write the first n < LANES numbers: by masks where there are some, because memcpy of a variable length takes
// long.
#if LANES == 16
inline vec load_first(const float* from, long n) {
    return (vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << n) - 1), from);
}
inline void store_first(float* to, vec x, long n) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1 << n) - 1), (__m512)x);
}
#elif LANES == 8
inline __m256i first_lanes(long n) { return (__m256i)(ivec{0, 1, 2, 3, 4, 5, 6, 7} < static_cast<int>(n)); }
inline vec load_first(const float* from, long n) { return (vec)_mm256_maskload_ps(from, first_lanes(n)); }
inline void store_first(float* to, vec x, long n) { _mm256_maskstore_ps(to, first_lanes(n), (__m256)x); }
#else
inline vec load_first(const float* from, long n) {
    vec x = {};
    std::memcpy(&x, from, n * sizeof(float));
    return x;
}
inline void store_first(float* to, vec x, long n) { std::memcpy(to, &x, n * sizeof(float)); }
#endif

// Read n numbers and set the rest of the vector to 0; write the first n.
inline vec load(const float* from, long n = LANES) {
    if (n < LANES) return load_first(from, n);
    vec x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline void store(float* to, vec x, long n = LANES) {
    if (n < LANES) store_first(to, x, n);
    else std::memcpy(to, &x, sizeof x);
}

inline long padded(long n) { return (n + LANES - 1) / LANES * LANES; }

#if LANES == 16
inline float sum(vec x) { return _mm512_reduce_add_ps((__m512)x); }
inline vec larger(vec x, vec y) { return (vec)_mm512_max_ps((__m512)x, (__m512)y); }
#else
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
inline vec larger(vec x, vec y) { return x > y ? x : y; }
#endif

// e^x for x up to 88; 0 below -87. x log2(e) = n + f with an integer n: adding 1.5 * 2^23 rounds to n, and leaves n in
// the lowest bits. The polynomial is the best of its degree for 2^f on |f| <= 1/2; its error is 1e-7 of the value.
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

// out = left * right (+ out, if `adds`) for R rows and V vectors of columns. The loops are
// unrolled (8: most rows, 3: most vectors), so that the sums stay in registers.
template <int R, int V>
inline void tile(Matrix left, const float* right, long right_stride, float* out, long out_stride, long inner,
                 bool adds) {
    vec sums[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 3
        for (int v = 0; v < V; v++) sums[r][v] = adds ? load(out + r * out_stride + v * LANES) : vec{};
    for (long k = 0; k < inner; k++) {
        vec columns[V];
#pragma GCC unroll 3
        for (int v = 0; v < V; v++) columns[v] = load(right + k * right_stride + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const float number = left.at[r * left.row + k * left.column];
#pragma GCC unroll 3
            for (int v = 0; v < V; v++) sums[r][v] += number * columns[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 3
        for (int v = 0; v < V; v++) store(out + r * out_stride + v * LANES, sums[r][v]);
}

// Multiply R rows at a time; R is halved for the rows that are left.
template <int V, int R = ROWS>
inline void tiles(Matrix left, const float* right, long right_stride, float* out, long out_stride, long rows,
                  long inner, bool adds) {
    long r = 0;
    for (; r + R <= rows; r += R)
        tile<R, V>(left.from_row(r), right, right_stride, out + r * out_stride, out_stride, inner, adds);
    if constexpr (R > 1)
        if (r < rows)
            tiles<V, R / 2>(left.from_row(r), right, right_stride, out + r * out_stride, out_stride, rows - r, inner,
                            adds);
}

// out = left * right (+ out); the number of columns must be a multiple of LANES. Columns are computed three vectors
// at a time, the last four as two and two.
inline void multiply(Matrix left, const float* right, long right_stride, float* out, long out_stride, long rows,
                     long inner, long columns, bool adds = false) {
    for (long c = 0; c < columns;) {
        const long vectors = (columns - c) / LANES;
        if (vectors == 1) {
            tiles<1>(left, right + c, right_stride, out + c, out_stride, rows, inner, adds);
            c += LANES;
        } else if (vectors == 2 || vectors == 4) {
            tiles<2>(left, right + c, right_stride, out + c, out_stride, rows, inner, adds);
            c += 2 * LANES;
        } else {
            tiles<3>(left, right + c, right_stride, out + c, out_stride, rows, inner, adds);
            c += 3 * LANES;
        }
    }
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
