// What a scan is asked, what it finds, and which ways there are of doing it.
#pragma once

#include <cstdint>
#include <vector>

namespace eyechart {

// Codes are compared so many columns at a time. What two rows differ by in some columns is a lower bound of what they
// differ by in all, so most pairs are ruled out by the first stage and the others are never looked at.
constexpr int STAGE = 32;

// Up to here, every sum below fits into 32 bits.
constexpr int64_t MAX_COLUMNS = 4096;

constexpr int32_t max_distance(int64_t columns) { return static_cast<int32_t>(columns * 256 * 256); }

// Added to the distance of a row that only fills up a block: it lies beyond every bound, and two of them fit as well.
constexpr int32_t BEYOND = 1 << 29;
static_assert(max_distance(MAX_COLUMNS) < BEYOND);

struct Rows {
    const float* data;  // null where there are none
    int64_t dim;

    const float* operator[](int64_t row) const { return data + row * dim; }
};

struct Job {
    const int8_t* codes;
    int64_t count;
    int64_t columns;  // a multiple of STAGE, MAX_COLUMNS at most
    int32_t bound;    // from -1, which no pair is within, to max_distance(columns)
    Rows semantic;
    double min_single;
    Rows reference;
    double max_single;
    const int32_t* ids;    // which of the rows above each code is of; null where they are in the same order
    int64_t start, stop;   // the x
    const int32_t* right;  // the y; null where they follow one another, and only y > x count
    int64_t first, end;    // the range of the y, or of their places in the list

    const int8_t* code(int64_t row) const { return codes + row * columns; }
    int64_t stages() const { return columns / STAGE; }
    int64_t id(int64_t row) const { return ids ? ids[row] : row; }
    int64_t y(int64_t place) const { return right ? right[place] : place; }
    bool ordered() const { return !right; }
};

struct Found {
    std::vector<int32_t> i, j;
    int64_t bounded = 0;  // pairs within the bound
    int64_t near = 0;     // of these, pairs above min_single
};

struct Path {
    const char* name;
    bool (*runs_here)();
    void (*scan)(const Job&, Found&);
};

// Those that this processor can run, the fastest first.
std::vector<Path> available_paths();

// One for each path. A path that the compiler's target cannot have is not declared.
void scan_portable(const Job&, Found&);
#if defined(__x86_64__)
void scan_avx512(const Job&, Found&);
void scan_avx2(const Job&, Found&);
#endif
#if defined(__aarch64__)
void scan_neondot(const Job&, Found&);  // both in neon.cpp
void scan_neon(const Job&, Found&);
#endif

}  // namespace eyechart
