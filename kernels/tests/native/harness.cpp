// Every path that runs here against a scan so plain that it can be checked by reading, on many random jobs. Names the
// paths if they all agree. For processors that are emulated, where there is no Python to test with.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <tuple>
#include <utility>

#include "scan.h"

using namespace eyechart;

namespace {

// Pairs in order; how many were within the bound; how many of these were near.
using Pairs = std::vector<std::pair<int32_t, int32_t>>;
using Outcome = std::tuple<Pairs, int64_t, int64_t>;

// A job and what it points to.
struct World {
    std::vector<int8_t> codes;
    std::vector<float> semantic, reference;
    std::vector<int32_t> ids, right;
    Job job;
};

std::mt19937 source;  // always with the same seed

int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(source() % (high - low + 1)); }

double one_of(std::initializer_list<double> values) { return values.begin()[between(0, values.size() - 1)]; }

// Close to each other, anything, as far apart as can be, or alike.
void fill_codes(World& world) {
    const int64_t columns = world.job.columns, kinds = between(1, 4);
    for (int64_t row = 0; row < world.job.count; ++row) {
        const int64_t kind = between(1, kinds), twin = row ? between(0, row - 1) : 0;
        for (int64_t k = 0; k < columns; ++k)
            world.codes[row * columns + k] = static_cast<int8_t>(
                kind == 1   ? between(-4, 4) + between(-4, 4)
                : kind == 2 ? between(-128, 127)
                : kind == 3 ? between(0, 1) * 255 - 128
                            : world.codes[twin * columns + k]);
    }
}

template <class Value>
const Value* filled(std::vector<Value>& numbers, int64_t count, int64_t low, int64_t high, Value unit = 1) {
    numbers.resize(count);
    for (Value& number : numbers) number = static_cast<Value>(between(low, high)) * unit;
    return numbers.data();
}

int64_t distance(const Job& job, int64_t x, int64_t y) {
    int64_t sum = 0;
    for (int64_t k = 0; k < job.columns; ++k) {
        const int difference = job.code(x)[k] - job.code(y)[k];
        sum += difference * difference;
    }
    return sum;
}

double dot(const Rows& rows, int64_t x, int64_t y) {
    return std::inner_product(rows[x], rows[x] + rows.dim, rows[y], 0.0);
}

void choose_limits(Job& job) {
    const double typical = distance(job, between(0, job.count - 1), between(0, job.count - 1));
    const double furthest = max_distance(job.columns);
    job.bound = static_cast<int32_t>(std::min(furthest, one_of({-1, 0, typical, typical - 1, 2 * typical, furthest})));
    job.min_single = one_of({-99, -0.5, 0, 0.5});
    job.max_single = one_of({99, 0.5, 0, -0.5});
}

void choose_ranges(World& world) {
    Job& job = world.job;
    job.start = between(0, job.count);
    job.stop = between(job.start, job.count);
    job.end = between(job.stop, job.count);
    job.first = between(0, 1) ? job.start + 1 : between(0, job.end);
    if (between(0, 1)) return;
    job.right = filled(world.right, 150, 0, job.count - 1);
    job.end = between(0, 150);
    job.first = between(0, job.end);
}

void build(World& world, int columns, int rows) {
    Job& job = world.job = {};
    world.codes.resize(rows * columns);
    job.codes = world.codes.data();
    job.count = rows;
    job.columns = columns;
    fill_codes(world);
    // In eighths, so that dot products have no rounding.
    const int64_t images = between(rows, 2 * rows), dim = between(1, 70), other = between(1, 70);
    job.semantic = {filled(world.semantic, images * dim, -8, 8, 0.125f), dim};
    if (between(0, 3)) job.reference = {filled(world.reference, images * other, -8, 8, 0.125f), other};
    if (between(0, 1)) job.ids = filled(world.ids, rows, 0, images - 1);
    choose_limits(job);
    choose_ranges(world);
}

void scan_by_hand(const Job& job, Found& found) {
    for (int64_t x = job.start; x < job.stop; ++x) {
        for (int64_t place = job.first; place < job.end; ++place) {
            const int64_t y = job.y(place);
            if ((job.ordered() && y <= x) || distance(job, x, y) > job.bound) continue;
            ++found.bounded;
            if (!(dot(job.semantic, job.id(x), job.id(y)) > job.min_single)) continue;
            ++found.near;
            if (job.reference.data && !(dot(job.reference, job.id(x), job.id(y)) < job.max_single)) continue;
            found.i.push_back(static_cast<int32_t>(x));
            found.j.push_back(static_cast<int32_t>(y));
        }
    }
}

Outcome outcome(void (*scan)(const Job&, Found&), const Job& job) {
    Found found;
    scan(job, found);
    Pairs pairs;
    for (size_t t = 0; t < found.i.size(); ++t) pairs.emplace_back(found.i[t], found.j[t]);
    std::sort(pairs.begin(), pairs.end());
    return {pairs, found.bounded, found.near};
}

void check(int columns, int rows) {
    World world;
    build(world, columns, rows);
    const Outcome expected = outcome(scan_by_hand, world.job);
    for (const Path& path : available_paths()) {
        if (outcome(path.scan, world.job) == expected) continue;
        std::printf("%s differs: %d rows of %d columns\n", path.name, rows, columns);
        std::exit(1);
    }
}

}  // namespace

int main() {
    for (int round = 0; round < 100; ++round)
        for (int columns = STAGE; columns <= 8 * STAGE; columns += STAGE) check(columns, between(1, 200));
    for (int round = 0; round < 20; ++round) check(MAX_COLUMNS, between(1, 40));
    for (const Path& path : available_paths()) std::printf("%s\n", path.name);
}
