// Containers whose memory is an arena's, for as long as their process lives.
#include <ndarena/allocator.hpp>

#include "support/places.hpp"

#include <gtest/gtest.h>
#include <boost/container/map.hpp>
#include <boost/container/string.hpp>
#include <boost/container/vector.hpp>

#include <list>
#include <memory>

namespace ndarena {
namespace {

namespace bc = boost::container;
template <class T>
using vector = bc::vector<T, allocator<T>>;
using string = bc::basic_string<char, std::char_traits<char>, allocator<char>>;

class Containers : public ::testing::Test {
protected:
    arena make(std::uint64_t capacity = std::uint64_t{64} << 20) {
        arena_options options;
        options.capacity = capacity;
        auto opened = arena::scratch(dir_.path(), options);
        EXPECT_TRUE(opened) << (opened ? "" : opened.err().message);
        return *opened;
    }
    test::temp_dir dir_;
};

TEST_F(Containers, LieInTheArena) {
    arena a = make();
    {
        vector<double> v{allocator<double>(a)};
        for (int i = 0; i < 100'000; ++i) {
            v.push_back(i);
        }
        EXPECT_TRUE(a.owns(v.data()));
        EXPECT_EQ(v[99'999], 99'999);

        using entry = std::pair<const int, string>;
        bc::map<int, string, std::less<>, allocator<entry>> m{allocator<entry>(a)};
        for (int i = 0; i < 1000; ++i) {
            m.emplace(i, string(static_cast<std::size_t>(i), 'x', allocator<char>(a)));
        }
        EXPECT_EQ(m.at(700).size(), 700U);
        EXPECT_TRUE(a.owns(m.at(700).data()));
        EXPECT_GT(a.stats().n_blocks, 1900U);
        auto moved = std::move(m);
        m.clear();
        EXPECT_EQ(moved.size(), 1000U);
    }
    EXPECT_EQ(a.stats().n_blocks, 0U);
    EXPECT_TRUE(a.check().empty());
}

TEST_F(Containers, AlignTheirElements) {
    struct alignas(4096) page {
        char bytes[4096];
    };
    arena a = make();
    vector<page> v{allocator<page>(a)};
    v.resize(3);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(v.data()) % 4096, 0U);
}

TEST_F(Containers, RefusalsAreExceptions) {
    arena a = make(std::uint64_t{1} << 20);
    vector<char> v{allocator<char>(a)};
    EXPECT_THROW(v.resize(std::size_t{1} << 30), std::bad_alloc);
    EXPECT_NE(a.refusal(), "");
    v.resize(1000, 'y');
    EXPECT_EQ(v[999], 'y');
    allocator<double> of(a);
    EXPECT_THROW((void)of.allocate(~std::size_t{0} / 4), std::bad_alloc);
}

TEST_F(Containers, AllocatorsOfOneArenaAreEqual) {
    arena a = make();
    arena b = make();
    const allocator<int> first(a);
    const allocator<double> second(first);
    EXPECT_TRUE(first == second);
    EXPECT_TRUE(first != allocator<int>(b));
    using traits = std::allocator_traits<allocator<int>>;
    static_assert(std::is_same_v<traits::rebind_alloc<char>, allocator<char>>);
    static_assert(std::is_same_v<traits::pointer, boost::interprocess::offset_ptr<int>>);
}

TEST_F(Containers, KeepTheArena) {
    vector<int> v{allocator<int>(make())};  // nobody else has it
    v.assign(10'000, 7);
    EXPECT_EQ(v.back(), 7);
}

}  // namespace
}  // namespace ndarena
