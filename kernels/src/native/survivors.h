// Pairs that the bound let through: collected, and then decided by dot products of their rows.
#pragma once

#include <memory>

#include "scan.h"

namespace eyechart {

class Survivors {
public:
    using Dot = float (*)(const float*, const float*, int64_t);

    Survivors(const Job& job, Dot dot, Found& found);

    void add(int64_t x, int64_t y) {
        pairs_[count_++] = {static_cast<int32_t>(x), static_cast<int32_t>(y)};
        if (count_ == ROOM) decide();
    }

    // Decides the pairs that are waiting; the last call comes after the last pair.
    void decide();

private:
    struct Pair {
        int32_t x, y;
    };

    static constexpr int ROOM = 4096;

    template <class Test>
    void keep(const Rows& rows, Test test);

    const Job& job_;
    Dot dot_;
    Found& found_;
    std::unique_ptr<Pair[]> pairs_;
    int count_ = 0;
};

}  // namespace eyechart
