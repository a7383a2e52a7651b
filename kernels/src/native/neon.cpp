// The paths for 64-bit ARM processors: `neondot` where there are dot products of bytes, `neon` for all of them.
//
// x.y - (|x|^2 + |y|^2 - bound) / 2 is negative as soon as the pair is ruled out. Sixteen x rows lie side by side, four
// columns at a time, and meet two y rows at once. That is done for the first stage alone; the few pairs that it leaves
// are looked at one by one.
#if defined(__aarch64__)

#include <arm_neon.h>

#include <algorithm>

#include "survivors.h"

#define INLINE inline __attribute__((always_inline))

namespace eyechart {
namespace {

constexpr int LANES = 4;   // 32-bit numbers to a register
constexpr int BYTES = 16;  // to a register
constexpr int BLOCK = 16;  // x rows
constexpr int GROUP = 2;   // y rows
constexpr int CHUNK = 64;  // y rows that stay in the nearest cache while all x rows pass
constexpr int WIDTH = 4;   // columns that are taken in at once

// The first stage of a block of x rows.
struct alignas(64) Left {
    int8_t codes[STAGE / WIDTH][BLOCK][WIDTH];
    int32_t rest[BLOCK];  // minus the squared lengths
};

// The first stage of a chunk of y rows.
struct alignas(64) Right {
    int8_t codes[CHUNK][STAGE];
    int32_t rest[CHUNK];  // the bound minus the squared lengths
};

// Lets the assembler take the instruction below. What a compiler may write by itself has to stay allowed: `sve`.
#if defined(__ARM_FEATURE_DOTPROD)
#define ALLOW_DOT ""
#else
#define ALLOW_DOT ".arch armv8.2-a+sve+dotprod\n\t"
#endif

// The sums of a y row with four x rows, by dot products of four bytes.
struct Dots {
    int32x4_t sums;

    INLINE explicit Dots(int32x4_t start) : sums(start) {}

    // Takes in four columns: of y, those at a place in the register. The instruction is written out, since a compiler
    // that is asked for every processor need not have its intrinsic.
    template <int place>
    INLINE void add(int8x16_t x, int8x16_t y) {
        asm(ALLOW_DOT "sdot %0.4s, %1.16b, %2.4b[%3]" : "+w"(sums) : "w"(x), "w"(y), "i"(place));
    }

    INLINE int32x4_t total() const { return sums; }
};

// The same by products of single bytes: two sums to a row, of the first two x rows and of the others.
struct Products {
    int32x4_t low, high;

    INLINE explicit Products(int32x4_t start)
        : low(vzip1q_s32(start, vdupq_n_s32(0))), high(vzip2q_s32(start, vdupq_n_s32(0))) {}

    template <int place>
    INLINE void add(int8x16_t x, int8x16_t y) {
        const int8x16_t four = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(y), place));
        low = vpadalq_s16(low, vmull_s8(vget_low_s8(x), vget_low_s8(four)));
        high = vpadalq_s16(high, vmull_high_s8(x, four));
    }

    INLINE int32x4_t total() const { return vpaddq_s32(low, high); }
};

// Of a y row with a block. Members with names, not an array: compilers leave those in registers.
template <class Sums>
struct RowSums {
    Sums first, second, third, fourth;
};

// Of a group with a block: negative for the pairs that are ruled out.
struct Signs {
    int8x16_t row0, row1;
};

int32_t squared_length(const int8_t* codes) {
    int32_t sum = 0;
    for (int k = 0; k < STAGE; ++k) sum += codes[k] * codes[k];
    return sum;
}

std::vector<Left> pack_left(const Job& job) {
    const int64_t blocks = (job.stop - job.start + BLOCK - 1) / BLOCK;
    std::vector<Left> left(blocks);
    for (int64_t place = 0; place < blocks * BLOCK; ++place) {
        Left& block = left[place / BLOCK];
        const int64_t x = job.start + place;
        const int row = place % BLOCK;
        block.rest[row] = x < job.stop ? -squared_length(job.code(x)) : -BEYOND;
        for (int k = 0; x < job.stop && k < STAGE; ++k) block.codes[k / WIDTH][row][k % WIDTH] = job.code(x)[k];
    }
    return left;
}

void pack_right(const Job& job, int64_t first, Right& right) {
    for (int row = 0; row < CHUNK; ++row) {
        const int64_t place = first + row;
        right.rest[row] = -BEYOND;  // whatever is left there from the chunk before
        if (place >= job.end) continue;
        const int8_t* codes = job.code(job.y(place));
        std::copy_n(codes, STAGE, right.codes[row]);
        right.rest[row] = job.bound - squared_length(codes);
    }
}

// Half of both, rounded down: with whole numbers added, that is negative exactly if the whole would be.
template <class Sums>
INLINE RowSums<Sums> started(const int32_t* left, const int32_t* right) {
    const int32x4_t y = vdupq_n_s32(*right);
    return {
        Sums(vhaddq_s32(vld1q_s32(left + 0 * LANES), y)),
        Sums(vhaddq_s32(vld1q_s32(left + 1 * LANES), y)),
        Sums(vhaddq_s32(vld1q_s32(left + 2 * LANES), y)),
        Sums(vhaddq_s32(vld1q_s32(left + 3 * LANES), y)),
    };
}

template <int place, class Sums>
INLINE void add_columns(const int8_t* left, int8x16_t y0, int8x16_t y1, RowSums<Sums>& row0, RowSums<Sums>& row1) {
    const int8x16_t first = vld1q_s8(left + 0 * BYTES), second = vld1q_s8(left + 1 * BYTES);
    const int8x16_t third = vld1q_s8(left + 2 * BYTES), fourth = vld1q_s8(left + 3 * BYTES);
    row0.first.template add<place>(first, y0);
    row0.second.template add<place>(second, y0);
    row0.third.template add<place>(third, y0);
    row0.fourth.template add<place>(fourth, y0);
    row1.first.template add<place>(first, y1);
    row1.second.template add<place>(second, y1);
    row1.third.template add<place>(third, y1);
    row1.fourth.template add<place>(fourth, y1);
}

// The highest byte of each sum.
template <class Sums>
INLINE int8x16_t signs(const RowSums<Sums>& row) {
    const int16x8_t low =
        vuzp2q_s16(vreinterpretq_s16_s32(row.first.total()), vreinterpretq_s16_s32(row.second.total()));
    const int16x8_t high =
        vuzp2q_s16(vreinterpretq_s16_s32(row.third.total()), vreinterpretq_s16_s32(row.fourth.total()));
    return vuzp2q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high));
}

template <class Sums>
INLINE Signs first_stage(const Left& left, const Right& right, int row) {
    RowSums<Sums> row0 = started<Sums>(left.rest, right.rest + row);
    RowSums<Sums> row1 = started<Sums>(left.rest, right.rest + row + 1);
    for (int k = 0; k < STAGE; k += BYTES) {
        const int8x16_t y0 = vld1q_s8(right.codes[row] + k), y1 = vld1q_s8(right.codes[row + 1] + k);
        const int8_t* codes = left.codes[k / WIDTH][0];
        add_columns<0>(codes + 0 * BLOCK * WIDTH, y0, y1, row0, row1);
        add_columns<1>(codes + 1 * BLOCK * WIDTH, y0, y1, row0, row1);
        add_columns<2>(codes + 2 * BLOCK * WIDTH, y0, y1, row0, row1);
        add_columns<3>(codes + 3 * BLOCK * WIDTH, y0, y1, row0, row1);
    }
    return {signs(row0), signs(row1)};
}

INLINE bool all_negative(const Signs& signs) { return vmaxvq_s8(vandq_s8(signs.row0, signs.row1)) < 0; }

int32_t stage_distance(const int8_t* x, const int8_t* y) {
    int32_t sum = 0;
    for (int k = 0; k < STAGE; ++k) {
        const int16_t difference = static_cast<int16_t>(x[k] - y[k]);
        sum += difference * difference;
    }
    return sum;
}

// Whether a pair that the first stage leaves is left by the others, too.
bool within(const Job& job, int64_t x, int64_t y) {
    if (job.stages() == 1) return true;
    int32_t rest = job.bound;
    for (int64_t k = 0; k < job.columns && rest >= 0; k += STAGE)
        rest -= stage_distance(job.code(x) + k, job.code(y) + k);
    return rest >= 0;
}

// Rarely needed, so kept out of the loop that is always hot.
__attribute__((noinline)) void add_row(
    const Job& job, int8x16_t signs, int64_t x, int64_t place, Survivors& survivors) {
    const uint16x8_t ruled_out = vreinterpretq_u16_s8(vshrq_n_s8(signs, 7));
    uint64_t left = ~vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(ruled_out, 4)), 0);  // four bits to an x row
    for (left &= 0x1111111111111111; left; left &= left - 1) {
        const int64_t row = x + __builtin_ctzll(left) / 4;
        if ((!job.ordered() || row < place) && within(job, row, job.y(place))) survivors.add(row, job.y(place));
    }
}

// A block of x rows against the groups of a chunk; where only y > x count, against those that have any.
template <class Sums>
void meet(const Job& job, const Left& left, const Right& right, int64_t x, int64_t first, Survivors& survivors) {
    const int64_t before = job.ordered() ? std::max<int64_t>(0, x + 1 - first) : 0;
    const int64_t skipped = before / GROUP * GROUP;
    for (int row = static_cast<int>(skipped); row < CHUNK; row += GROUP) {
        const Signs signs = first_stage<Sums>(left, right, row);
        if (__builtin_expect(all_negative(signs), 1)) continue;
        add_row(job, signs.row0, x, first + row, survivors);
        add_row(job, signs.row1, x, first + row + 1, survivors);
    }
}

float dot(const float* a, const float* b, int64_t dim) {
    float32x4_t sums[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    int64_t k = 0;
    for (; k + 4 * LANES <= dim; k += 4 * LANES)
#pragma GCC unroll 4
        for (int s = 0; s < 4; ++s)
            sums[s] = vfmaq_f32(sums[s], vld1q_f32(a + k + s * LANES), vld1q_f32(b + k + s * LANES));
    float total = vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])));
    for (; k < dim; ++k) total += a[k] * b[k];
    return total;
}

template <class Sums>
void scan(const Job& job, Found& found) {
    const std::vector<Left> left = pack_left(job);
    Right right = {};
    Survivors survivors(job, dot, found);
    for (int64_t first = job.first; first < job.end; first += CHUNK) {
        pack_right(job, first, right);
        const int64_t last = std::min(first + CHUNK, job.end) - 1;
        const int64_t end = job.ordered() ? std::min(job.stop, last) : job.stop;
        for (int64_t x = job.start; x < end; x += BLOCK)
            meet<Sums>(job, left[(x - job.start) / BLOCK], right, x, first, survivors);
    }
    survivors.decide();
}

}  // namespace

void scan_neon(const Job& job, Found& found) { scan<Products>(job, found); }
void scan_neondot(const Job& job, Found& found) { scan<Dots>(job, found); }

}  // namespace eyechart

#endif
