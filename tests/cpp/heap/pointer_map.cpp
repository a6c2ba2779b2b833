#include "heap/pointer_map.hpp"

#include <gtest/gtest.h>

#include <random>
#include <unordered_map>
#include <vector>

namespace ndarena::heap {
namespace {

TEST(PointerMap, AgreesWithTheStandardOne) {
    pointer_map map;
    std::unordered_map<std::uint64_t, map_entry> model;
    std::vector<std::uint64_t> keys;
    std::mt19937_64 random(1);
    EXPECT_EQ(map.find(64), nullptr);
    for (int i = 0; i < 200000; ++i) {
        // Growing and shrinking by turns; keys that collide and keys in rows.
        const bool grow = i / 20000 % 2 == 0;
        const std::uint64_t key = (1 + random() % 50000) * 64;
        if (model.count(key) == 0 && random() % 10 < (grow ? 9U : 3U)) {
            const map_entry entry{
                key, random() % 1000, random(), static_cast<std::uint32_t>(random()), 1,
                0,   false,           0};
            ASSERT_TRUE(map.reserve());
            map.insert(entry);
            model[key] = entry;
            keys.push_back(key);
        } else if (!keys.empty()) {
            const std::size_t at = random() % keys.size();
            const std::uint64_t victim = keys[at];
            keys[at] = keys.back();
            keys.pop_back();
            map_entry* entry = map.find(victim);
            ASSERT_NE(entry, nullptr);
            ASSERT_EQ(entry->serial, model[victim].serial);
            ASSERT_EQ(entry->record, model[victim].record);
            map.erase(entry);
            model.erase(victim);
        }
        ASSERT_EQ(map.find(key) != nullptr, model.count(key) != 0);
        ASSERT_EQ(map.size(), model.size());
    }
    std::uint64_t bytes = 0;
    for (const auto& [key, entry] : model) {
        ASSERT_NE(map.find(key), nullptr);
        bytes += entry.nbytes;
    }
    EXPECT_EQ(map.bytes(), bytes);
    std::uint64_t visited = 0;
    map.for_each([&](const map_entry& entry) { visited += model.count(entry.key); });
    EXPECT_EQ(visited, model.size());
    map.clear();
    EXPECT_EQ(map.size(), 0U);
    EXPECT_EQ(map.find(64), nullptr);
    ASSERT_TRUE(map.reserve());
}

TEST(PointerMap, KeepsTheSumOfSizes) {
    pointer_map map;
    ASSERT_TRUE(map.reserve());
    map.insert({64, 100, 1, 1, 1, 0, false, 0});
    map.resized(map.find(64), 30);
    EXPECT_EQ(map.bytes(), 30U);
    EXPECT_EQ(map.find(64)->nbytes, 30U);
    map.erase(map.find(64));
    EXPECT_EQ(map.bytes(), 0U);
}

}  // namespace
}  // namespace ndarena::heap
