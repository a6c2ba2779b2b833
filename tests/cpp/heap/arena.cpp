// The public face, used as a program would.
#include <ndarena/arena.hpp>

#include "support/anonymous.hpp"
#include "support/places.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

namespace ndarena {
namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

class Arena : public ::testing::Test {
protected:
    static arena_options sized(std::uint64_t capacity) {
        arena_options o;
        o.capacity = capacity;
        return o;
    }
    static errc code(const result<arena>& r) { return r ? errc::ok : r.err().code; }
    test::temp_dir dir_;
    std::string path_ = dir_ / "arena";
};

TEST_F(Arena, ALife) {
    auto opened = arena::scratch(dir_.path(), sized(64 * mib));
    ASSERT_TRUE(opened);
    arena& a = *opened;
    auto* p = static_cast<std::byte*>(a.allocate(mib));
    ASSERT_NE(p, nullptr);
    EXPECT_TRUE(a.owns(p));
    EXPECT_TRUE(a.owns(p + mib - 1));
    EXPECT_FALSE(a.owns(&opened));
    EXPECT_EQ(a.size_of(p), mib);
    std::memset(p, 5, mib);
    p = static_cast<std::byte*>(a.reallocate(p, 2 * mib));
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(p[mib - 1], std::byte{5});
    const arena_stats s = a.stats();
    EXPECT_EQ(s.capacity, 64 * mib);
    EXPECT_EQ(s.n_blocks, 1U);
    EXPECT_EQ(s.allocated, 2 * mib);
    EXPECT_GE(s.committed, s.allocated);
    EXPECT_GE(s.peak_allocated, s.allocated);
    EXPECT_EQ(s.processes, 1U);
    EXPECT_EQ(s.in_transit, 0U);
    EXPECT_GT(s.resident, 0U);
    EXPECT_TRUE(a.deallocate(p));
    EXPECT_FALSE(a.deallocate(p));
    EXPECT_GE(a.trim(), 2 * mib);
    EXPECT_TRUE(a.check().empty());
    EXPECT_EQ(a.allocate(65 * mib), nullptr);
    EXPECT_FALSE(a.refusal().empty());
    EXPECT_TRUE(a.grow(128 * mib));
    EXPECT_NE(a.allocate_zeroed(65 * mib, 4096), nullptr);
    EXPECT_EQ(a.reclaim(), 0U);
}

TEST_F(Arena, ModesOfFiles) {
    EXPECT_EQ(code(arena::open(path_, mode::read)), errc::not_found);
    EXPECT_EQ(code(arena::open(path_, mode::read_write)), errc::not_found);
    {
        const auto made = arena::open(path_, mode::exclusive, sized(16 * mib));
        ASSERT_TRUE(made);
        EXPECT_EQ(code(arena::open(path_, mode::exclusive)), errc::exists);
    }
    EXPECT_EQ(code(arena::open(path_, mode::append)), errc::ok);
    EXPECT_EQ(code(arena::open(path_, mode::create, sized(32 * mib))), errc::ok);
    auto reader = arena::open(path_, mode::read);
    ASSERT_TRUE(reader);
    EXPECT_EQ(reader->stats().capacity, 32 * mib);
    EXPECT_EQ(reader->allocate(1), nullptr);
    auto owner = arena::open(path_, mode::read_write);
    ASSERT_TRUE(owner);
    EXPECT_TRUE(owner->unlink());
    EXPECT_EQ(owner->unlink().err().code, errc::not_found);
    EXPECT_NE(owner->allocate(mib), nullptr);
}

TEST_F(Arena, CopiesShareOneMapping) {
    auto opened = arena::scratch(dir_.path(), sized(16 * mib));
    ASSERT_TRUE(opened);
    arena copy = *opened;
    void* p = opened->allocate(100);
    EXPECT_TRUE(copy.owns(p));
    EXPECT_EQ(copy.size_of(p), 100U);
    opened = error{};  // the first handle goes
    std::memset(p, 1, 100);
    EXPECT_TRUE(copy.deallocate(p));
}

TEST_F(Arena, LivesInABuffer) {
    const test::anonymous_memory memory(16 * mib);
    auto opened = arena::over(memory.data(), memory.size());
    ASSERT_TRUE(opened);
    const auto* p = static_cast<std::byte*>(opened->allocate(mib));
    EXPECT_GE(p, memory.data());
    EXPECT_LT(p, memory.data() + memory.size());
    EXPECT_FALSE(opened->unlink());
    EXPECT_EQ(code(arena::over(nullptr, 100)), errc::invalid);
    const test::anonymous_memory used(16 * mib);
    std::memset(used.data(), 1, 100);
    EXPECT_EQ(code(arena::over(used.data(), used.size())), errc::format);
    EXPECT_EQ(code(arena::over(used.data(), used.size(), true)), errc::ok);
}

TEST_F(Arena, ErrorsSayWhatAndWhere) {
    const auto refused = arena::open(dir_ / "nowhere/arena", mode::create);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.err().code, errc::not_found);
    EXPECT_NE(refused.err().os_errno, 0);
    EXPECT_NE(refused.err().path.find("nowhere"), std::string::npos);
    EXPECT_NE(refused.err().message.find("directory"), std::string::npos);
    arena_options odd;
    odd.alignment = 100;
    EXPECT_EQ(code(arena::scratch(dir_.path(), odd)), errc::invalid);
    EXPECT_EQ(code(arena::scratch(dir_.path(), sized(100))), errc::invalid);
    EXPECT_EQ(code(arena::shared("a/b", mode::create)), errc::invalid);
}

// The smallest arena there can be is one that works.
TEST_F(Arena, TheSmallestCapacityWorks) {
    std::uint64_t low = 4096;
    std::uint64_t high = mib;
    while (high - low > 4096) {
        const std::uint64_t middle = (low + high) / 2 / 4096 * 4096;
        (arena::scratch(dir_.path(), sized(middle)) ? high : low) = middle;
    }
    auto smallest = arena::scratch(dir_.path(), sized(high));
    ASSERT_TRUE(smallest);
    void* p = smallest->allocate(100);
    EXPECT_NE(p, nullptr) << smallest->refusal();
    EXPECT_TRUE(smallest->deallocate(p));
    EXPECT_TRUE(smallest->check().empty());
}

TEST(Result, HoldsOneOrTheOther) {
    const result<int> good = 5;
    const result<int> bad = error{errc::exists, 17, "message", "path"};
    EXPECT_TRUE(good);
    EXPECT_EQ(*good, 5);
    EXPECT_FALSE(bad);
    EXPECT_EQ(bad.err().code, errc::exists);
    EXPECT_EQ(bad.err().path, "path");
    EXPECT_TRUE(result<void>{});
    EXPECT_FALSE(result<void>(error{}));
}

}  // namespace
}  // namespace ndarena
