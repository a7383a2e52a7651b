// The path for x86 processors with AVX2 and FMA.
//
// With 2 x.y - |x|^2 - |y|^2 = -|x - y|^2, a sum that starts at the bound and takes in one stage after another is
// negative as soon as the pair is ruled out. Sixteen x rows lie side by side, two columns at a time (one 16-bit
// multiply-add takes both), and meet four y rows at once: eight sums of eight pairs, which stay in registers.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "survivors.h"

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX2_INLINE AVX2 inline __attribute__((always_inline))

namespace eyechart {
namespace {

constexpr int LANES = 8;        // 32-bit numbers to a register
constexpr int BLOCK = 16;       // x rows
constexpr int GROUP = 4;        // y rows
constexpr int CHUNK = 64;       // y rows that stay in the nearest cache while all x rows pass
constexpr int STEPS = STAGE / 2;

// A stage of a block of x rows.
struct alignas(64) Left {
    int16_t codes[STEPS][BLOCK][2];  // times two
    int32_t norms[BLOCK];            // squared lengths
};

// A stage of a chunk of y rows.
struct alignas(64) Right {
    int16_t codes[CHUNK][STAGE];
    int32_t rest[CHUNK];  // minus the squared length; in the first stage, the bound is added
};

// Of one y row with the lower and the upper half of a block.
struct RowSums {
    __m256i low, high;
};

// Of a group with a block. Members with names, not an array: compilers leave those in registers.
struct Sums {
    RowSums row0, row1, row2, row3;
};

int32_t squared_length(const int8_t* codes) {
    int32_t sum = 0;
    for (int k = 0; k < STAGE; ++k) sum += codes[k] * codes[k];
    return sum;
}

// The stages of each block, one after another.
std::vector<Left> pack_left(const Job& job) {
    const int64_t blocks = (job.stop - job.start + BLOCK - 1) / BLOCK, stages = job.stages();
    std::vector<Left> left(blocks * stages);
    for (int64_t place = 0; place < blocks * BLOCK; ++place) {
        Left* block = &left[place / BLOCK * stages];
        const int64_t x = job.start + place;
        const int row = place % BLOCK;
        if (x >= job.stop) block->norms[row] = BEYOND;
        for (int64_t stage = 0; x < job.stop && stage < stages; ++stage) {
            const int8_t* codes = job.code(x) + stage * STAGE;
            block[stage].norms[row] = squared_length(codes);
            for (int k = 0; k < STAGE; ++k) block[stage].codes[k / 2][row][k % 2] = static_cast<int16_t>(2 * codes[k]);
        }
    }
    return left;
}

AVX2 void pack_right(const Job& job, int64_t first, std::vector<Right>& right) {
    for (int row = 0; row < CHUNK; ++row) {
        const int64_t place = first + row;
        if (place >= job.end) right[0].rest[row] = -BEYOND;  // whatever is left there from the chunk before
        for (int64_t stage = 0; place < job.end && stage < job.stages(); ++stage) {
            const int8_t* codes = job.code(job.y(place)) + stage * STAGE;
            for (int k = 0; k < STAGE; ++k) right[stage].codes[row][k] = codes[k];
            right[stage].rest[row] = (stage == 0 ? job.bound : 0) - squared_length(codes);
        }
    }
}

AVX2_INLINE __m256i two_columns(const int16_t* codes) {
    int32_t both;
    std::memcpy(&both, codes, sizeof both);
    return _mm256_set1_epi32(both);
}

AVX2_INLINE __m256i load(const void* from) { return _mm256_load_si256(static_cast<const __m256i*>(from)); }

AVX2_INLINE void add_lengths(__m256i low, __m256i high, const int32_t* rest, RowSums& sums) {
    const __m256i y = _mm256_set1_epi32(*rest);
    sums.low = _mm256_add_epi32(sums.low, _mm256_sub_epi32(y, low));
    sums.high = _mm256_add_epi32(sums.high, _mm256_sub_epi32(y, high));
}

AVX2_INLINE void add_products(__m256i low, __m256i high, const int16_t* codes, RowSums& sums) {
    const __m256i y = two_columns(codes);
    sums.low = _mm256_add_epi32(sums.low, _mm256_madd_epi16(low, y));
    sums.high = _mm256_add_epi32(sums.high, _mm256_madd_epi16(high, y));
}

AVX2_INLINE void add_stage(const Left& left, const Right& right, int row, Sums& sums) {
    const __m256i low = load(left.norms), high = load(left.norms + LANES);
    const int32_t* rest = right.rest + row;
    add_lengths(low, high, rest + 0, sums.row0);
    add_lengths(low, high, rest + 1, sums.row1);
    add_lengths(low, high, rest + 2, sums.row2);
    add_lengths(low, high, rest + 3, sums.row3);
    const int16_t* codes = right.codes[row];
    // Sixteen at once would be reordered, and the sums would not stay in registers.
#pragma GCC unroll 4
    for (int step = 0; step < STEPS; ++step) {
        const __m256i low = load(left.codes[step]), high = load(left.codes[step] + LANES);
        add_products(low, high, codes + 2 * step + 0 * STAGE, sums.row0);
        add_products(low, high, codes + 2 * step + 1 * STAGE, sums.row1);
        add_products(low, high, codes + 2 * step + 2 * STAGE, sums.row2);
        add_products(low, high, codes + 2 * step + 3 * STAGE, sums.row3);
    }
}

AVX2_INLINE __m256i negative_in_both(const RowSums& sums) { return _mm256_and_si256(sums.low, sums.high); }

AVX2_INLINE unsigned signs(__m256i numbers) { return _mm256_movemask_ps(_mm256_castsi256_ps(numbers)); }

AVX2_INLINE bool all_negative(const Sums& sums) {
    const __m256i first = _mm256_and_si256(negative_in_both(sums.row0), negative_in_both(sums.row1));
    const __m256i second = _mm256_and_si256(negative_in_both(sums.row2), negative_in_both(sums.row3));
    return signs(_mm256_and_si256(first, second)) == 0xFF;
}

AVX2_INLINE void add_row(const Job& job, const RowSums& sums, int64_t x, int64_t place, Survivors& survivors) {
    unsigned within = ~(signs(sums.low) | signs(sums.high) << LANES) & 0xFFFF;
    for (; within; within &= within - 1) {
        const int64_t left = x + __builtin_ctz(within);
        if (!job.ordered() || left < place) survivors.add(left, job.y(place));
    }
}

// The stages after the first: rarely needed, so kept out of the loop that is always hot.
AVX2 __attribute__((noinline)) void finish(
    const Job& job,
    const Left* left,
    const std::vector<Right>& right,
    int row,
    Sums& sums,
    int64_t x,
    int64_t place,
    Survivors& survivors) {
    for (size_t stage = 1; stage < right.size(); ++stage) {
        add_stage(left[stage], right[stage], row, sums);
        if (all_negative(sums)) return;
    }
    add_row(job, sums.row0, x, place, survivors);
    add_row(job, sums.row1, x, place + 1, survivors);
    add_row(job, sums.row2, x, place + 2, survivors);
    add_row(job, sums.row3, x, place + 3, survivors);
}

// A block of x rows against the groups of a chunk; where only y > x count, against those that have any.
AVX2 void meet(
    const Job& job,
    const Left* left,
    const std::vector<Right>& right,
    int64_t x,
    int64_t first,
    Survivors& survivors) {
    const int64_t before = job.ordered() ? std::max<int64_t>(0, x + 1 - first) : 0;
    const int64_t skipped = before / GROUP * GROUP;
    for (int row = static_cast<int>(skipped); row < CHUNK; row += GROUP) {
        Sums sums = {};
        add_stage(left[0], right[0], row, sums);
        if (__builtin_expect(!all_negative(sums), 0)) {
            Sums copy = sums;  // so that those of the hot path never need an address
            finish(job, left, right, row, copy, x, first + row, survivors);
        }
    }
}

AVX2 float sum_of(__m256 lanes) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

AVX2 float dot(const float* a, const float* b, int64_t dim) {
    __m256 sums[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    int64_t k = 0;
    for (; k + 4 * LANES <= dim; k += 4 * LANES)
#pragma GCC unroll 4
        for (int s = 0; s < 4; ++s)
            sums[s] = _mm256_fmadd_ps(_mm256_loadu_ps(a + k + s * LANES), _mm256_loadu_ps(b + k + s * LANES), sums[s]);
    float total = sum_of(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])));
    for (; k < dim; ++k) total += a[k] * b[k];
    return total;
}

}  // namespace

void scan_avx2(const Job& job, Found& found) {
    const std::vector<Left> left = pack_left(job);
    std::vector<Right> right(job.stages());
    Survivors survivors(job, dot, found);
    for (int64_t first = job.first; first < job.end; first += CHUNK) {
        pack_right(job, first, right);
        const int64_t last = std::min(first + CHUNK, job.end) - 1;
        const int64_t end = job.ordered() ? std::min(job.stop, last) : job.stop;
        for (int64_t x = job.start; x < end; x += BLOCK)
            meet(job, &left[(x - job.start) / BLOCK * job.stages()], right, x, first, survivors);
    }
    survivors.decide();
}

}  // namespace eyechart

#endif
