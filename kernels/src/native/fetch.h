// Asking for rows before their turn.
#pragma once

#include <cstdint>

namespace eyechart {

constexpr int AHEAD = 4;  // pairs whose rows are asked for before their turn

inline void fetch(const float* row, int64_t dim) {
    constexpr int64_t LINE = 16;   // floats to a cache line
    constexpr int64_t LINES = 16;  // of a row; the processor then sees by itself how it goes on
    const int64_t end = dim < LINES * LINE ? dim : LINES * LINE;
    for (int64_t k = 0; k < end; k += LINE) __builtin_prefetch(row + k);
}

}  // namespace eyechart
