#include "base/base.hpp"

#include <gtest/gtest.h>

namespace ndarena::base {
namespace {

constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();

TEST(Bits, PowersOfTwo) {
    EXPECT_FALSE(is_power_of_two(0));
    for (unsigned shift = 0; shift < 64; ++shift) {
        const std::uint64_t x = std::uint64_t{1} << shift;
        EXPECT_TRUE(is_power_of_two(x));
        EXPECT_EQ(is_power_of_two(x + 1), x == 1);
        EXPECT_EQ(is_power_of_two(x - 1), x == 2);
    }
}

TEST(Bits, AlignsDownAndUp) {
    for (const std::uint64_t alignment : {1U, 2U, 64U, 4096U, 1U << 21}) {
        for (const std::uint64_t x : {0U, 1U, 63U, 64U, 65U, 4095U, 4096U, 4097U, 12345678U}) {
            const std::uint64_t down = align_down(x, alignment);
            const std::uint64_t up = align_up(x, alignment);
            EXPECT_EQ(down % alignment, 0U);
            EXPECT_EQ(up % alignment, 0U);
            EXPECT_LE(down, x);
            EXPECT_GE(up, x);
            EXPECT_EQ(up - down, x % alignment == 0 ? 0 : alignment);
        }
    }
}

TEST(Bits, FindsHighestAndLowestBit) {
    for (unsigned bit = 0; bit < 64; ++bit) {
        const std::uint64_t x = std::uint64_t{1} << bit;
        EXPECT_EQ(floor_log2(x), bit);
        EXPECT_EQ(floor_log2(x | 1), bit);
        EXPECT_EQ(lowest_bit(x), bit);
        EXPECT_EQ(lowest_bit(x | std::uint64_t{1} << 63), bit);
    }
}

TEST(Bits, SeesOverflowingProducts) {
    EXPECT_FALSE(mul_overflows(0, most));
    EXPECT_FALSE(mul_overflows(most, 0));
    EXPECT_FALSE(mul_overflows(most, 1));
    EXPECT_TRUE(mul_overflows(most, 2));
    EXPECT_FALSE(mul_overflows(std::size_t{1} << 32, (std::size_t{1} << 32) - 1));
    EXPECT_TRUE(mul_overflows(std::size_t{1} << 32, std::size_t{1} << 32));
}

TEST(Bits, ComparesRangesWithoutOverflow) {
    EXPECT_TRUE(range_within(10, 5, 10, 15));
    EXPECT_FALSE(range_within(10, 6, 10, 15));
    EXPECT_FALSE(range_within(9, 5, 10, 15));
    EXPECT_TRUE(range_within(15, 0, 10, 15));
    EXPECT_FALSE(range_within(16, 0, 10, 15));
    EXPECT_FALSE(range_within(12, most, 10, 15));
    EXPECT_FALSE(range_within(most, most, 10, 15));
    EXPECT_TRUE(range_within(0, most, 0, most));
}

}  // namespace
}  // namespace ndarena::base
