// The path for x86 processors with AVX-512 and its VNNI instructions.
//
// One of these multiplies four unsigned bytes with four signed ones in each of sixteen lanes. So x rows are stored as
// code + 128, which adds 128 times the sum of the y row, and is taken away with its length. Sixty-four x rows meet four y
// rows at once, which are read as they lie: sixteen sums of sixteen pairs, which stay in registers.
//
// A pair is within the bound if |x|^2 <= 2 x.y + rest, with rest = bound - |y|^2. To leave the doubling out, the hot loop
// compares halves of |x|^2 and rest, both rounded down: that lets through a few pairs more and none less (an odd rest can
// spare the half, as 2 x.y is even), and they are compared exactly.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "survivors.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define AVX512_INLINE AVX512 inline __attribute__((always_inline))

namespace eyechart {
namespace {

constexpr int LANES = 16;       // 32-bit numbers to a register
constexpr int BLOCK = 64;       // x rows
constexpr int GROUP = 4;        // y rows
constexpr int CHUNK = 128;      // y rows that stay in the nearest cache while all x rows pass
constexpr int AHEAD = 16;       // y rows that are asked for before their turn
constexpr int LINE = 64;        // codes to a cache line
constexpr int STEPS = STAGE / 4;

// A stage of a block of x rows.
struct alignas(64) Left {
    uint8_t codes[STEPS][BLOCK][4];  // plus 128
    int32_t lengths[BLOCK];          // squared, of this stage and those before it
};

// A chunk of y rows.
struct Right {
    const int8_t* codes[CHUNK];
    std::vector<int32_t> rest;  // of each stage and those before it, a row after another
};

// How many stages are compared before the first look. Where that look rules out little, one more is cheaper.
struct Depth {
    int64_t stages = 1;
    int64_t looks = 0;     // at a group
    int64_t finished = 0;  // sums that went through the other stages

    void adapt(int64_t all) {
        if (finished > looks && stages < all) ++stages;
        looks = finished = 0;
    }
};

// Of one y row with the quarters of a block.
struct Sums {
    __m512i quarter0, quarter1, quarter2, quarter3;
};

// Of a group with a block. Members with names, not an array: compilers leave those in registers.
struct Group {
    Sums row0, row1, row2, row3;
};

// A block of x rows and a chunk of y rows, and where what they have in common goes.
struct Meeting {
    const Job& job;
    const Left* left;
    const Right& right;
    int64_t x, first;
    int rows;
    Depth& depth;
    Survivors& survivors;
};

AVX512_INLINE __m512i load(const void* from) { return _mm512_load_si512(from); }

AVX512_INLINE __m512i wide(const int8_t* codes) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
}

AVX512_INLINE int32_t squared_length(const int8_t* codes) {
    const __m512i numbers = wide(codes);
    return _mm512_reduce_add_epi32(_mm512_madd_epi16(numbers, numbers));
}

// What a y row takes from the bound: its squared length, and what the 128 in every x adds twice.
AVX512_INLINE int32_t taken(const int8_t* codes) {
    const __m512i numbers = wide(codes);
    return _mm512_reduce_add_epi32(_mm512_madd_epi16(numbers, _mm512_add_epi16(numbers, _mm512_set1_epi16(256))));
}

AVX512_INLINE __m512i four_columns(const int8_t* codes) {
    int32_t all;
    std::memcpy(&all, codes, sizeof all);
    return _mm512_set1_epi32(all);
}

AVX512 void pack_row(const Job& job, int64_t x, int row, Left* block) {
    int32_t length = 0;
    for (int64_t stage = 0; stage < job.stages(); ++stage) {
        const int8_t* codes = job.code(x) + stage * STAGE;
        length += squared_length(codes);
        block[stage].lengths[row] = length;
        for (int k = 0; k < STAGE; ++k) block[stage].codes[k / 4][row][k % 4] = static_cast<uint8_t>(codes[k] + 128);
    }
}

// The stages of each block, one after another.
std::vector<Left> pack_left(const Job& job) {
    const int64_t blocks = (job.stop - job.start + BLOCK - 1) / BLOCK, stages = job.stages();
    std::vector<Left> left(blocks * stages);
    for (int64_t place = 0; place < blocks * BLOCK; ++place) {
        Left* block = &left[place / BLOCK * stages];
        const int row = place % BLOCK;
        if (job.start + place < job.stop) {
            pack_row(job, job.start + place, row, block);
        } else {
            for (int64_t stage = 0; stage < stages; ++stage) block[stage].lengths[row] = BEYOND;
        }
    }
    return left;
}

void ask_for(const Job& job, int64_t place) {
    if (place >= job.end) return;
    for (int64_t k = 0; k < job.columns; k += LINE) __builtin_prefetch(job.code(job.y(place)) + k);
}

AVX512 void pack_right(const Job& job, int64_t first, int rows, Right& right) {
    int32_t* rest = right.rest.data();
    for (int row = 0; row < rows; ++row) {
        ask_for(job, first + row + AHEAD);
        right.codes[row] = job.code(job.y(first + row));
        int32_t left = job.bound;
        for (int64_t stage = 0; stage < job.stages(); ++stage)
            *rest++ = left -= taken(right.codes[row] + stage * STAGE);
    }
}

AVX512_INLINE __m512i half(__m512i numbers) { return _mm512_srai_epi32(numbers, 1); }

AVX512_INLINE Sums start(int32_t rest) {
    const __m512i sum = half(_mm512_set1_epi32(rest));
    return {sum, sum, sum, sum};
}

// Four columns of a block.
AVX512_INLINE Sums columns_of(const uint8_t (*codes)[4]) {
    return {load(codes), load(codes + LANES), load(codes + 2 * LANES), load(codes + 3 * LANES)};
}

AVX512_INLINE void add_products(const Sums& x, const int8_t* codes, Sums& sums) {
    const __m512i y = four_columns(codes);
    sums.quarter0 = _mm512_dpbusd_epi32(sums.quarter0, x.quarter0, y);
    sums.quarter1 = _mm512_dpbusd_epi32(sums.quarter1, x.quarter1, y);
    sums.quarter2 = _mm512_dpbusd_epi32(sums.quarter2, x.quarter2, y);
    sums.quarter3 = _mm512_dpbusd_epi32(sums.quarter3, x.quarter3, y);
}

AVX512_INLINE void add_stage(const Left& left, const int8_t* const* codes, int64_t column, Group& sums) {
#pragma GCC unroll 8
    for (int step = 0; step < STEPS; ++step, column += 4) {
        const Sums x = columns_of(left.codes[step]);
        add_products(x, codes[0] + column, sums.row0);
        add_products(x, codes[1] + column, sums.row1);
        add_products(x, codes[2] + column, sums.row2);
        add_products(x, codes[3] + column, sums.row3);
    }
}

AVX512_INLINE uint64_t maybe_within(const Left& left, const Sums& sums) {
    const uint64_t found0 = _mm512_cmpge_epi32_mask(sums.quarter0, half(load(left.lengths)));
    const uint64_t found1 = _mm512_cmpge_epi32_mask(sums.quarter1, half(load(left.lengths + LANES)));
    const uint64_t found2 = _mm512_cmpge_epi32_mask(sums.quarter2, half(load(left.lengths + 2 * LANES)));
    const uint64_t found3 = _mm512_cmpge_epi32_mask(sums.quarter3, half(load(left.lengths + 3 * LANES)));
    return found0 | found1 << LANES | found2 << 2 * LANES | found3 << 3 * LANES;
}

AVX512_INLINE __m512i largest(__m512i a, __m512i b, __m512i c, __m512i d) {
    return _mm512_max_epi32(_mm512_max_epi32(a, b), _mm512_max_epi32(c, d));
}

// Whether any pair of a group may be.
AVX512_INLINE bool any_within(const Left& left, const Group& sums) {
    const Sums most = {
        largest(sums.row0.quarter0, sums.row1.quarter0, sums.row2.quarter0, sums.row3.quarter0),
        largest(sums.row0.quarter1, sums.row1.quarter1, sums.row2.quarter1, sums.row3.quarter1),
        largest(sums.row0.quarter2, sums.row1.quarter2, sums.row2.quarter2, sums.row3.quarter2),
        largest(sums.row0.quarter3, sums.row1.quarter3, sums.row2.quarter3, sums.row3.quarter3),
    };
    return maybe_within(left, most) != 0;
}

AVX512_INLINE uint32_t within(__m512i sums, int32_t rest, const int32_t* lengths) {
    const __m512i twice = _mm512_slli_epi32(sums, 1);
    return _mm512_cmpge_epi32_mask(_mm512_add_epi32(twice, _mm512_set1_epi32(rest)), load(lengths));
}

// Sixteen x rows with a y row, from sums of the first stages on: exactly, and through the other ones.
AVX512 void finish(const Meeting& now, int from, int row, __m512i sums) {
    const Job& job = now.job;
    const int32_t* rest = &now.right.rest[row * job.stages()];
    const int8_t* codes = now.right.codes[row];
    int64_t stage = now.depth.stages - 1;
    sums = _mm512_sub_epi32(sums, start(rest[stage]).quarter0);
    uint32_t found = within(sums, rest[stage], now.left[stage].lengths + from);
    while (found && ++stage < job.stages()) {
        for (int step = 0; step < STEPS; ++step)
            sums = _mm512_dpbusd_epi32(
                sums, load(now.left[stage].codes[step] + from), four_columns(codes + stage * STAGE + 4 * step));
        found = within(sums, rest[stage], now.left[stage].lengths + from);
    }
    for (; found; found &= found - 1) {
        const int64_t x = now.x + from + __builtin_ctz(found);
        if (!job.ordered() || x < now.first + row) now.survivors.add(x, job.y(now.first + row));
    }
}

AVX512_INLINE void finish_row(const Meeting& now, int row, const Sums& sums) {
    const __m512i quarters[] = {sums.quarter0, sums.quarter1, sums.quarter2, sums.quarter3};
    uint64_t some = maybe_within(now.left[now.depth.stages - 1], sums);
    for (int from = 0; some; from += LANES, some >>= LANES)
        if (some & 0xFFFF) finish(now, from, row, quarters[from / LANES]), ++now.depth.finished;
}

// Rarely needed, so kept out of the loop that is always hot.
AVX512 __attribute__((noinline)) void finish_group(const Meeting& now, int row, const Group& sums) {
    finish_row(now, row, sums.row0);
    finish_row(now, row + 1, sums.row1);
    finish_row(now, row + 2, sums.row2);
    finish_row(now, row + 3, sums.row3);
}

AVX512_INLINE void meet_group(const Meeting& now, int row, int64_t stages) {
    const int8_t* const* codes = now.right.codes + row;
    const int32_t* rest = &now.right.rest[row * now.job.stages() + stages - 1];
    const int64_t next = now.job.stages();
    Group sums = {start(rest[0]), start(rest[next]), start(rest[2 * next]), start(rest[3 * next])};
    for (int64_t stage = 0; stage < stages; ++stage) add_stage(now.left[stage], codes, stage * STAGE, sums);
    if (__builtin_expect(any_within(now.left[stages - 1], sums), 0)) {
        const Group copy = sums;  // so that those of the hot path never need an address
        finish_group(now, row, copy);
    }
}

AVX512 void meet_row(const Meeting& now, int row) {
    const int64_t stages = now.depth.stages;
    Sums sums = start(now.right.rest[row * now.job.stages() + stages - 1]);
    for (int64_t stage = 0; stage < stages; ++stage)
        for (int step = 0; step < STEPS; ++step) {
            const int8_t* codes = now.right.codes[row] + stage * STAGE + 4 * step;
            add_products(columns_of(now.left[stage].codes[step]), codes, sums);
        }
    finish_row(now, row, sums);
}

// Where only y > x count, the rows of the chunk are met from the first such y on.
AVX512 void meet(const Meeting& now) {
    int row = now.job.ordered() ? static_cast<int>(std::max<int64_t>(0, now.x + 1 - now.first)) : 0;
    const int64_t stages = now.depth.stages;
    now.depth.looks += (now.rows - row) / GROUP;
    for (; row + GROUP <= now.rows; row += GROUP) meet_group(now, row, stages);
    for (; row < now.rows; ++row) meet_row(now, row);
}

AVX512 float dot(const float* a, const float* b, int64_t dim) {
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    int64_t k = 0;
    for (; k + 4 * LANES <= dim; k += 4 * LANES)
#pragma GCC unroll 4
        for (int s = 0; s < 4; ++s)
            sums[s] = _mm512_fmadd_ps(_mm512_loadu_ps(a + k + s * LANES), _mm512_loadu_ps(b + k + s * LANES), sums[s]);
    float total =
        _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
    for (; k < dim; ++k) total += a[k] * b[k];
    return total;
}

}  // namespace

void scan_avx512(const Job& job, Found& found) {
    const std::vector<Left> left = pack_left(job);
    Right right;
    right.rest.resize(CHUNK * job.stages());
    Depth depth;
    Survivors survivors(job, dot, found);
    for (int64_t first = job.first; first < job.end; first += CHUNK) {
        const int rows = static_cast<int>(std::min<int64_t>(CHUNK, job.end - first));
        pack_right(job, first, rows, right);
        const int64_t end = job.ordered() ? std::min(job.stop, first + rows - 1) : job.stop;
        for (int64_t x = job.start; x < end; x += BLOCK) {
            const Left* block = &left[(x - job.start) / BLOCK * job.stages()];
            meet({job, block, right, x, first, rows, depth, survivors});
        }
        if (!job.ordered() || first >= job.stop) depth.adapt(job.stages());  // rows meet themselves in chunks before
    }
    survivors.decide();
}

}  // namespace eyechart

#endif
