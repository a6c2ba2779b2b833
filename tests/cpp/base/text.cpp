#include "base/base.hpp"

#include <gtest/gtest.h>

namespace ndarena::base {
namespace {

TEST(HumanSize, NamesTheUnit) {
    EXPECT_EQ(human_size(0), "0 bytes");
    EXPECT_EQ(human_size(1023), "1023 bytes");
    EXPECT_EQ(human_size(1024), "1.00 KiB");
    EXPECT_EQ(human_size(1536), "1.50 KiB");
    EXPECT_EQ(human_size(std::uint64_t{1} << 20), "1.00 MiB");
    EXPECT_EQ(human_size(std::uint64_t{5} << 30), "5.00 GiB");
    EXPECT_EQ(human_size(std::uint64_t{1} << 44), "16.00 TiB");
    EXPECT_EQ(human_size(std::uint64_t{1} << 50), "1.00 PiB");
    EXPECT_EQ(human_size(std::numeric_limits<std::uint64_t>::max()), "16.00 EiB");
}

}  // namespace
}  // namespace ndarena::base
