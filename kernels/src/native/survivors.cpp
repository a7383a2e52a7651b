#include "survivors.h"

namespace eyechart {
namespace {

constexpr int AHEAD = 4;       // pairs whose rows are asked for before their turn
constexpr int64_t LINE = 16;   // floats to a cache line
constexpr int64_t LINES = 16;  // of a row; the processor then sees by itself how it goes on

void fetch(const float* row, int64_t dim) {
    const int64_t end = dim < LINES * LINE ? dim : LINES * LINE;
    for (int64_t k = 0; k < end; k += LINE) __builtin_prefetch(row + k);
}

}  // namespace

Survivors::Survivors(const Job& job, Dot dot, Found& found)
    : job_(job), dot_(dot), found_(found), pairs_(new Pair[ROOM]) {}

// Leaves the pairs whose dot product passes the test.
template <class Test>
void Survivors::keep(const Rows& rows, Test test) {
    int kept = 0;
    for (int t = 0; t < count_; ++t) {
        if (t + AHEAD < count_) {
            fetch(rows[job_.id(pairs_[t + AHEAD].x)], rows.dim);
            fetch(rows[job_.id(pairs_[t + AHEAD].y)], rows.dim);
        }
        const Pair pair = pairs_[t];
        if (test(dot_(rows[job_.id(pair.x)], rows[job_.id(pair.y)], rows.dim))) pairs_[kept++] = pair;
    }
    count_ = kept;
}

void Survivors::decide() {
    found_.bounded += count_;
    keep(job_.semantic, [this](double dot) { return dot > job_.min_single; });
    found_.near += count_;
    if (job_.reference.data) keep(job_.reference, [this](double dot) { return dot < job_.max_single; });
    for (int t = 0; t < count_; ++t) {
        found_.i.push_back(pairs_[t].x);
        found_.j.push_back(pairs_[t].y);
    }
    count_ = 0;
}

}  // namespace eyechart
