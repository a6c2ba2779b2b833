#include <ndarena/memory_resource.hpp>

#include "support/places.hpp"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <string>
#include <unordered_map>
#include <vector>

namespace ndarena {
namespace {

class Resource : public ::testing::Test {
protected:
    memory_resource make(std::uint64_t capacity = std::uint64_t{64} << 20) {
        arena_options o;
        o.capacity = capacity;
        auto opened = arena::scratch(dir_.path(), o);
        EXPECT_TRUE(opened);
        return memory_resource(*opened);
    }
    test::temp_dir dir_;
};

TEST_F(Resource, CarriesStandardContainers) {
    memory_resource resource = make();
    {
        std::pmr::vector<double> numbers(&resource);
        for (int i = 0; i < 100000; ++i) {
            numbers.push_back(i);
        }
        EXPECT_EQ(std::accumulate(numbers.begin(), numbers.end(), 0.0), 4999950000.0);
        EXPECT_TRUE(resource.upstream().owns(numbers.data()));

        std::pmr::map<std::pmr::string, int> by_name(&resource);
        std::pmr::unordered_map<int, std::pmr::string> by_number(&resource);
        for (int i = 0; i < 2000; ++i) {
            std::pmr::string name("a name too long for the small buffer: ", &resource);
            name += std::to_string(i);
            by_name[name] = i;
            by_number[i] = name;
        }
        for (int i = 0; i < 2000; i += 2) {
            by_name.erase(by_number[i]);
        }
        EXPECT_EQ(by_name.size(), 1000U);
        EXPECT_EQ(by_name[by_number[77]], 77);
        EXPECT_TRUE(resource.upstream().check().empty());
    }
    EXPECT_EQ(resource.upstream().stats().allocated, 0U);
}

TEST_F(Resource, KeepsAlignment) {
    struct alignas(4096) page {
        char bytes[4096];
    };
    memory_resource resource = make();
    std::pmr::vector<page> pages(7, &resource);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pages.data()) % 4096, 0U);
}

TEST_F(Resource, ThrowsWhenRefused) {
    memory_resource resource = make(std::uint64_t{1} << 20);
    std::pmr::vector<char> bytes(&resource);
    EXPECT_THROW(bytes.resize(std::size_t{2} << 20), std::bad_alloc);
    bytes.resize(1000);
    EXPECT_EQ(bytes.size(), 1000U);
}

TEST_F(Resource, EqualIfOverTheSameArena) {
    memory_resource a = make();
    const memory_resource same(a.upstream());
    const memory_resource other = make();
    EXPECT_TRUE(a == same);
    EXPECT_FALSE(a == other);
    EXPECT_FALSE(a == *std::pmr::new_delete_resource());
}

}  // namespace
}  // namespace ndarena
