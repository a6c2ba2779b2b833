// How full nodes are, what small trees look like, and what failures leave.
#include "directory/fixture.hpp"

#include "support/build.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>

namespace ndarena::directory {
namespace {

class TreeShape : public TreeTest {
protected:
    static std::string numbered(std::size_t i) {
        std::array<char, 32> text{};
        std::snprintf(text.data(), text.size(), "name/%011zu", i);
        return text.data();
    }
    void assign_all(const std::vector<std::size_t>& order) {
        editor changes(store_, id_, root_);
        const std::string value(40, 'v');
        for (const std::size_t i : order) {
            const auto replaced = changes.assign(numbered(i), value, nullptr);
            ASSERT_TRUE(replaced && !*replaced);
        }
        commit(changes);
    }
    // Bytes of keys, values and their heads and slots, by bytes of pages.
    double fill(std::size_t keys) const {
        return static_cast<double>(keys * (16 + 40 + 4 + 2)) /
               static_cast<double>(store_.pages.size() * node_bytes);
    }
    static std::vector<std::size_t> ascending(std::size_t n) {
        std::vector<std::size_t> order(n);
        std::iota(order.begin(), order.end(), std::size_t{0});
        return order;
    }
    model_map model_of(std::size_t n) const {
        model_map model;
        for (std::size_t i = 0; i < n; ++i) {
            model[numbered(i)] = std::string(40, 'v');
        }
        return model;
    }
    const std::size_t many_ = test::under_sanitizer ? 20000 : 200000;
};

TEST_F(TreeShape, EmptyTree) {
    std::string value;
    editor changes(store_, id_, {});
    EXPECT_FALSE(*changes.find("a", value));
    EXPECT_FALSE(*changes.erase("a", &value));
    EXPECT_EQ(*changes.count(), 0U);
    EXPECT_TRUE(changes.scan("", [](auto, auto) { return true; }));
    EXPECT_FALSE(changes.changed());
    const auto root = changes.write(store_.placer());
    ASSERT_TRUE(root);
    EXPECT_EQ(root->offset, 0U);
    EXPECT_FALSE(*view().find("a", value));
    EXPECT_EQ(*view().count(), 0U);
    expect_tree({});
}

TEST_F(TreeShape, OneKeyComesAndGoes) {
    editor first(store_, id_, {});
    EXPECT_FALSE(*first.assign("a", "1", nullptr));
    EXPECT_EQ(first.dirty_nodes(), 1U);
    commit(first);
    expect_tree({{"a", "1"}});
    editor second(store_, id_, root_);
    std::string old;
    EXPECT_TRUE(*second.assign("a", "1", &old));
    EXPECT_EQ(old, "1");
    EXPECT_FALSE(second.changed()) << "an equal value is no change";
    EXPECT_TRUE(*second.erase("a", &old));
    EXPECT_TRUE(second.changed());
    EXPECT_EQ(second.dirty_nodes(), 0U);
    commit(second);
    EXPECT_EQ(root_.offset, 0U);
    expect_tree({});
}

TEST_F(TreeShape, NothingChangedIsTheSameRoot) {
    assign_all(ascending(1000));
    editor changes(store_, id_, root_);
    std::string value;
    EXPECT_TRUE(*changes.find(numbered(5), value));
    EXPECT_FALSE(*changes.erase("nobody", nullptr));
    store_.places_left = 0;
    const auto root = changes.write(store_.placer());
    ASSERT_TRUE(root);
    EXPECT_EQ(root->offset, root_.offset);
    EXPECT_TRUE(changes.retired().empty());
}

TEST_F(TreeShape, ImpossibleLengths) {
    editor changes(store_, id_, root_);
    const std::string longest(max_key_bytes, 'k');
    const std::string value(max_value_bytes, 'v');
    EXPECT_EQ(changes.assign("", "v", nullptr).err().code, errc::invalid);
    EXPECT_EQ(changes.assign(longest + "k", "v", nullptr).err().code, errc::invalid);
    EXPECT_EQ(changes.assign("k", value + "v", nullptr).err().code, errc::invalid);
    EXPECT_FALSE(changes.is_broken());
    EXPECT_FALSE(changes.changed());
    ASSERT_TRUE(changes.assign(longest, value, nullptr));
    std::string found;
    EXPECT_TRUE(*changes.find(longest, found));
    EXPECT_FALSE(*changes.find(longest + "k", found));
    EXPECT_FALSE(*changes.find("", found));
}

TEST_F(TreeShape, AscendingKeysFillTheNodes) {
    assign_all(ascending(many_));
    EXPECT_GT(fill(many_), 0.9);
    expect_tree(model_of(many_));
}

TEST_F(TreeShape, AscendingKeysFillTheNodesOverManyTransactions) {
    for (std::size_t i = 0; i < 2000; ++i) {
        assign_all({i});
    }
    EXPECT_GT(fill(2000), 0.9);
    expect_tree(model_of(2000));
}

// Runs that grow by turns, none of which is the last of the tree but one.
TEST_F(TreeShape, InterleavedRunsFillTheNodes) {
    editor changes(store_, id_, root_);
    for (std::size_t i = 0; i < 20000; ++i) {
        ASSERT_TRUE(changes.assign(numbered(i % 8 * 1000000 + i), std::string(40, 'v'), nullptr));
    }
    commit(changes);
    EXPECT_GT(fill(20000), 0.9);
}

TEST_F(TreeShape, RandomKeysFillTwoThirds) {
    auto order = ascending(many_);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
    assign_all(order);
    EXPECT_GT(fill(many_), 0.6);
    expect_tree(model_of(many_));
}

TEST_F(TreeShape, DeletionsShrinkTheTree) {
    assign_all(ascending(many_));
    auto order = ascending(many_);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(2));
    const std::size_t left = many_ / 100;
    editor changes(store_, id_, root_);
    model_map model = model_of(many_);
    for (std::size_t i = left; i < many_; ++i) {
        ASSERT_TRUE(*changes.erase(numbered(order[i]), nullptr));
        model.erase(numbered(order[i]));
    }
    commit(changes);
    EXPECT_GT(fill(left), 0.35);
    expect_tree(model);
}

// Each operation of a transaction meets a read that fails, at every point where
// it reads: the editor is as before, or broken for good.
TEST_F(TreeShape, FailingReads) {
    constexpr std::size_t keys = 6000;
    assign_all(ascending(keys));
    const page_store::page_map stored = store_.pages;
    const model_map before = model_of(keys);
    unsigned broken = 0;
    unsigned intact = 0;
    for (std::size_t round = 0; round < 60; ++round) {
        editor changes(store_, id_, root_);
        model_map model = before;
        for (std::size_t i = 0; i < 90 && !changes.is_broken(); ++i) {
            store_.reads_left = (round + i) % 5;
            const bool erase = round % 2 == 0;  // neighbours, until nodes merge
            const std::string key = numbered((round * 97 + (erase ? i : i * 31)) % keys);
            const auto done =
                erase ? changes.erase(key, nullptr) : changes.assign(key, "new", nullptr);
            store_.reads_left = page_store::never;
            if (done) {
                erase ? static_cast<void>(model.erase(key)) : static_cast<void>(model[key] = "new");
                continue;
            }
            EXPECT_EQ(done.err().code, errc::os);
            ++(changes.is_broken() ? broken : intact);
        }
        if (changes.is_broken()) {
            EXPECT_EQ(changes.assign("a", "b", nullptr).err().code, errc::os);
            EXPECT_EQ(changes.write(store_.placer()).err().code, errc::os);
        } else {
            auto at = model.begin();
            const auto done = changes.scan("", [&](std::string_view key, std::string_view value) {
                const bool same = at != model.end() && at->first == key && at->second == value;
                at = same ? std::next(at) : at;
                return same;
            });
            ASSERT_TRUE(done);
            ASSERT_EQ(at, model.end());
        }
        ASSERT_EQ(store_.pages, stored);
    }
    EXPECT_GT(intact, 0U);
    EXPECT_GT(broken, 0U);
}

TEST_F(TreeShape, FailingPlaces) {
    assign_all(ascending(3000));
    const page_store::page_map stored = store_.pages;
    const model_map model = model_of(3000);
    for (std::uint64_t places = 0;; ++places) {
        editor changes(store_, id_, root_);
        for (std::size_t i = 0; i < 3000; i += 300) {
            ASSERT_TRUE(*changes.assign(numbered(i), "new", nullptr));
        }
        if (places == changes.dirty_nodes()) {
            break;
        }
        store_.places_left = places;
        EXPECT_EQ(changes.write(store_.placer()).err().code, errc::no_memory);
        EXPECT_TRUE(changes.is_broken());
        store_.places_left = page_store::never;
        for (auto at = store_.pages.begin(); at != store_.pages.end();) {
            at = stored.count(at->first) == 0 ? store_.pages.erase(at) : std::next(at);
        }
        ASSERT_EQ(store_.pages, stored);
        expect_tree(model);
    }
}

}  // namespace
}  // namespace ndarena::directory
