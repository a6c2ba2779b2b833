#include "tlsf/tlsf.hpp"

#include <gtest/gtest.h>

#include <random>

namespace ndarena::tlsf {
namespace {

constexpr std::uint64_t granule = segment::granule;

std::uint64_t rank(size_class c) { return c.first * segment::second_level_count + c.second; }

// Sizes of all magnitudes, close to the borders of classes.
template <class F>
void for_many_sizes(F&& f) {
    std::mt19937_64 random(3);
    for (std::uint64_t granules = 1; granules < 5000; ++granules) {
        f(granules * granule);
    }
    for (unsigned log = 12; log < 44 - segment::granule_shift; ++log) {
        for (int i = 0; i < 200; ++i) {
            const std::uint64_t step = std::uint64_t{1} << (log - segment::second_level_log2);
            const std::uint64_t border = (std::uint64_t{1} << log) + random() % 32 * step;
            f((border - 1) * granule);
            f(border * granule);
            f((border + 1) * granule);
            f(((std::uint64_t{1} << log) + random() % (std::uint64_t{1} << log)) * granule);
        }
    }
}

TEST(SizeClass, SmallSizesHaveAListEach) {
    for (unsigned granules = 1; granules < segment::second_level_count; ++granules) {
        EXPECT_TRUE(class_of(granules * granule) == (size_class{0, granules}));
    }
    EXPECT_TRUE(class_of(32 * granule) == (size_class{1, 0}));
    EXPECT_TRUE(class_of(64 * granule) == (size_class{2, 0}));
    EXPECT_TRUE(class_of(66 * granule) == (size_class{2, 1}));
}

TEST(SizeClass, LargerSizesAreInNoLowerClass) {
    std::uint64_t previous = 0;
    for (std::uint64_t size = granule; size < 4096 * granule; size += granule) {
        EXPECT_GE(rank(class_of(size)), previous);
        EXPECT_LE(rank(class_of(size)), previous + 1);
        previous = rank(class_of(size));
    }
}

TEST(SizeClass, AllClassesFitTheTables) {
    for_many_sizes([](std::uint64_t size) {
        const size_class c = class_of(size);
        ASSERT_LT(c.first, segment::first_level_count);
        ASSERT_LT(c.second, segment::second_level_count);
    });
    const size_class top = class_of(segment::max_capacity);
    EXPECT_LT(top.first, segment::first_level_count);
}

TEST(SizeClass, TheClassThatHoldsHolds) {
    for_many_sizes([](std::uint64_t size) {
        const size_class own = class_of(size);
        const size_class holds = class_that_holds(size);
        ASSERT_GE(rank(holds), rank(own));
        ASSERT_LE(rank(holds), rank(own) + 1);
        // The smallest size of that class: the first one in it.
        if (!(holds == own)) {
            ASSERT_FALSE(class_of(size) == holds);
        } else {
            ASSERT_TRUE(size == granule || !(class_of(size - granule) == own))
                << "a smaller block of the class would not hold " << size;
        }
    });
}

TEST(SizeClass, BlocksAreRoundedByAtMostAThirtySecondth) {
    for_many_sizes([](std::uint64_t size) {
        const size_class c = class_of(size);
        if (c.first == 0) {
            return;
        }
        const std::uint64_t step = granule << (c.first - 1);
        ASSERT_TRUE(class_of(size / step * step) == c);
        ASSERT_FALSE(class_of(size / step * step + step) == c);
        ASSERT_LE(step * segment::second_level_count, size);
    });
}

TEST(BlockSize, SmallOnesAreGranulesLargeOnesPages) {
    EXPECT_EQ(block_size_for(0), granule);
    EXPECT_EQ(block_size_for(1), granule);
    EXPECT_EQ(block_size_for(64), 64U);
    EXPECT_EQ(block_size_for(65), 128U);
    EXPECT_EQ(block_size_for(page_block_threshold - 1), page_block_threshold);
    EXPECT_EQ(block_size_for(page_block_threshold), page_block_threshold);
    EXPECT_EQ(block_size_for(page_block_threshold + 1), page_block_threshold + 4096);
    EXPECT_EQ(block_size_for(segment::max_capacity), segment::max_capacity);
}

}  // namespace
}  // namespace ndarena::tlsf
