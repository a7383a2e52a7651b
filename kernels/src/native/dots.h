// Dot products of listed pairs of rows.
#pragma once

#include "scan.h"

namespace eyechart {

// In float64 and in an order that is laid down, so that every processor comes to the same bits: eight sums, each of every
// eighth product, then halves of these. A product of two floats is exact in float64, fused or not.
void double_dots(const Rows& rows, const int32_t* i, const int32_t* j, int64_t count, double* out);

}  // namespace eyechart
