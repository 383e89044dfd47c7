// CSAI and the head `gru` in single precision, with the instructions that the processor has.
//
// ../library.py calls these functions. They keep no state and use one thread. A function returns 0, or 1 if memory is
// short.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <vector>
#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_SETS 1
#include <immintrin.h>
#endif

struct AttentionSizes {  // P: S filled up to a multiple of 16
    long B, A, S, D, P;
};
struct LayerSizes {
    long B, S, D, C, F;
};
struct LayerWeights {
    float *project, *mix, *scale1, *shift1, *widen, *bias1, *narrow, *bias2, *scale2, *shift2, *contract;
};
struct LayerKept {
    float *first, *scales1, *wide, *second, *scales2;
};
struct RecurrenceSizes {
    long K, T, B, D, H;
};
struct Steps {
    const float *values, *observed, *rate, *weight;
};
struct Weights {
    float *hidden, *history_bias, *new_bias, *feature, *feature_bias, *input;
};
struct Trace {
    float *history, *combined, *hidden;
};
struct Kept {
    float *decayed, *hidden_new, *feature, *reset_update, *new_gate;
};
struct Gradients {
    float *values, *rate, *weight, *first;
    Weights weights;
};

struct GruSizes {
    long B, T, D, H;
};
struct GruWeights {
    float *input, *hidden, *input_bias, *hidden_bias;
};
struct GruKept {  // hidden_new: the state's part in the new gate
    float *states, *hidden_new, *gates;
};

#define SET plain
#define LANES 4
#define ROWS 4
#include "one_set.hpp"
#undef SET
#undef LANES
#undef ROWS

#ifdef HAS_SETS
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define SET avx2
#define LANES 8
#define ROWS 4
#include "one_set.hpp"
#undef SET
#undef LANES
#undef ROWS
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma")
#endif
#define SET avx512
#define LANES 16
#define ROWS 8
#include "one_set.hpp"
#undef SET
#undef LANES
#undef ROWS
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace {

// Calls a function of the instruction set with this number; those that the processor lacks are never chosen.
#ifdef HAS_SETS
#define OF_SET(set, function, ...)                                                              \
    ((set) == 2 ? avx512::function(__VA_ARGS__)                                                 \
                : (set) == 1 ? avx2::function(__VA_ARGS__) : plain::function(__VA_ARGS__))
#else
#define OF_SET(set, function, ...) plain::function(__VA_ARGS__)
#endif

// No exception may leave a C function; a vector that gets no memory throws one.
#define WITH_MEMORY(work)           \
    try {                           \
        work;                       \
        return 0;                   \
    } catch (const std::exception&) { \
        return 1;                   \
    }

template <int d>
void attention_forward(int set, const AttentionSizes& sizes, const float* tokens, const float* maps,
                       const float* places, float* kept, float* shifts, float* attended) {
    OF_SET(set, attention_forward<d>, sizes, tokens, maps, places, kept, shifts, attended);
}

template <int d>
void attention_backward(int set, const AttentionSizes& sizes, const float* tokens, const float* maps,
                        const float* kept, const float* shifts, const float* attended, const float* given,
                        float* G_tokens, float* G_maps, float* G_places) {
    OF_SET(set, attention_backward<d>, sizes, tokens, maps, kept, shifts, attended, given, G_tokens, G_maps, G_places);
}

}  // namespace

extern "C" {

// Raised with every change of these functions' arguments, here and in ../library.py.
int imputune_interface() { return 2; }

// The best instruction set of this processor: 0 any, 1 AVX2, 2 AVX-512.
int imputune_best_set() {
#ifdef HAS_SETS
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

// d, the channels of a head, must be 2, 4, 8 or 16. kept: queries, keys and values (3, B, C, P).
// shifts (2, B, A, P): highest scores, and 1 / sums of exponentials.
int imputune_attention_forward(int set, const AttentionSizes* sizes, long d, const float* tokens, const float* maps,
                               const float* places, float* kept, float* shifts, float* attended) {
    const auto compute = d == 2   ? attention_forward<2>
                         : d == 4 ? attention_forward<4>
                         : d == 8 ? attention_forward<8>
                                  : attention_forward<16>;
    WITH_MEMORY(compute(set, *sizes, tokens, maps, places, kept, shifts, attended))
}

int imputune_attention_backward(int set, const AttentionSizes* sizes, long d, const float* tokens, const float* maps,
                                const float* kept, const float* shifts, const float* attended, const float* given,
                                float* G_tokens, float* G_maps, float* G_places) {
    const auto compute = d == 2   ? attention_backward<2>
                         : d == 4 ? attention_backward<4>
                         : d == 8 ? attention_backward<8>
                                  : attention_backward<16>;
    WITH_MEMORY(
        compute(set, *sizes, tokens, maps, kept, shifts, attended, given, G_tokens, G_maps, G_places))
}

int imputune_layer_forward(int set, const LayerSizes* sizes, const float* tokens, const float* attended,
                           const float* places, const LayerWeights* weights, const LayerKept* kept,
                           float* contracted) {
    WITH_MEMORY(OF_SET(set, layer_forward, *sizes, tokens, attended, places, *weights, *kept, contracted))
}

int imputune_layer_backward(int set, const LayerSizes* sizes, const float* tokens, const float* attended,
                            const LayerWeights* weights, const LayerKept* kept, const float* given, float* G_tokens,
                            float* G_attended, float* G_places, const LayerWeights* gradients) {
    WITH_MEMORY(OF_SET(set, layer_backward, *sizes, tokens, attended, *weights, *kept, given, G_tokens, G_attended,
                       G_places, *gradients))
}

int imputune_recurrence_forward(int set, const RecurrenceSizes* sizes, const Steps* steps, const Weights* weights,
                                const float* first, const Trace* trace, const Kept* kept) {
    WITH_MEMORY(OF_SET(set, recurrence_forward, *sizes, *steps, *weights, first, *trace, *kept))
}

// `transposed` holds hidden, feature and the first D rows of input, each transposed; its other pointers are null. Pointers
// in `given` may be null.
int imputune_recurrence_backward(int set, const RecurrenceSizes* sizes, const Steps* steps, const Weights* transposed,
                                 const Trace* trace, const Kept* kept, const Trace* given,
                                 const Gradients* gradients) {
    WITH_MEMORY(OF_SET(set, recurrence_backward, *sizes, *steps, *transposed, *trace, *kept, *given, *gradients))
}

int imputune_gru_forward(int set, const GruSizes* sizes, const float* series, const float* first,
                         const GruWeights* weights, const GruKept* kept) {
    WITH_MEMORY(OF_SET(set, gru_forward, *sizes, series, first, *weights, *kept))
}

// G_series may be null.
int imputune_gru_backward(int set, const GruSizes* sizes, const float* series, const GruWeights* weights,
                          const GruKept* kept, const float* given, float* G_series, float* G_first,
                          const GruWeights* gradients) {
    WITH_MEMORY(OF_SET(set, gru_backward, *sizes, series, *weights, *kept, given, G_series, G_first, *gradients))
}
}
