#include "survivors.h"

#include "fetch.h"

namespace eyechart {

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
