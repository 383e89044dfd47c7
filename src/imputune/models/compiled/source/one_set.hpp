// All functions for one instruction set; kernels.cpp includes this file once for each.
//
// SET: the namespace. LANES: numbers in a vector. ROWS: rows of a product's tile, so that its sums stay in registers.

namespace SET {
#include "vectors.hpp"

#include "attention.hpp"

#include "layer.hpp"

#include "recurrence.hpp"

#include "gru.hpp"
}  // namespace SET
