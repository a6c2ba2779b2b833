// Random operations against std::map, with many rounds of writing and reading
// back.
#include "directory/fixture.hpp"

#include "support/build.hpp"

#include <algorithm>
#include <random>

namespace ndarena::directory {
namespace {

struct parameters {
    std::uint64_t seed;
    std::size_t longest_key;
    std::size_t longest_value;
    int alphabet;    // few letters: long common prefixes and many repetitions
    int round;       // operations of one, at most
    int operations;  // of all
};
std::ostream& operator<<(std::ostream& out, const parameters& p) {
    return out << "seed " << p.seed << ", keys up to " << p.longest_key << ", values up to "
               << p.longest_value << ", " << p.alphabet << " letters";
}

class TreeModel : public TreeTest, public ::testing::WithParamInterface<parameters> {
protected:
    std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
    bool chance(unsigned percent) { return below(100) < percent; }

    std::string random_bytes(std::size_t length, int letters) {
        std::string bytes(length, '\0');
        for (char& c : bytes) {
            // Both ends of the range of a byte, so that signed order would show.
            const auto n = below(static_cast<std::uint64_t>(letters));
            c = static_cast<char>(n % 2 == 0 ? n / 2 : 255 - n / 2);
        }
        return bytes;
    }
    std::size_t random_length(std::size_t least, std::size_t most) {
        switch (below(4)) {
            case 0:
                return most - below(std::min<std::size_t>(4, most - least + 1));
            case 1:
                return least + below(most - least + 1);
            default:
                return least + below(std::min<std::size_t>(24, most - least + 1));
        }
    }
    std::string random_key() {
        if (!model_.empty() && chance(50)) {
            return present_key();
        }
        if (!model_.empty() && chance(50)) {  // a relative of a present one
            std::string key = present_key();
            key.resize(std::min(key.size(), 1 + below(key.size() + 8)));
            key += random_bytes(1 + below(3), GetParam().alphabet);
            key.resize(std::min(key.size(), GetParam().longest_key));
            return key;
        }
        return random_bytes(random_length(1, GetParam().longest_key), GetParam().alphabet);
    }
    std::string present_key() {
        const auto at = model_.lower_bound(random_bytes(1 + below(3), 256));
        return at == model_.end() ? model_.begin()->first : at->first;
    }
    std::string random_value() {
        return random_bytes(random_length(0, GetParam().longest_value), 256);
    }

    void assign(editor& changes) {
        const std::string key = random_key();
        const std::string value = random_value();
        std::string old = "untouched";
        const auto replaced = changes.assign(key, value, &old);
        ASSERT_TRUE(replaced) << replaced.err().message;
        const auto found = model_.find(key);
        ASSERT_EQ(*replaced, found != model_.end());
        ASSERT_EQ(old, found != model_.end() ? found->second : "untouched");
        model_[key] = value;
    }
    void erase(editor& changes) {
        const std::string key = random_key();
        std::string old = "untouched";
        const auto erased = changes.erase(key, &old);
        ASSERT_TRUE(erased) << erased.err().message;
        const auto found = model_.find(key);
        ASSERT_EQ(*erased, found != model_.end());
        ASSERT_EQ(old, found != model_.end() ? found->second : "untouched");
        if (*erased) {
            model_.erase(found);
        }
    }
    template <class Tree>
    void look(Tree&& tree) {
        const std::string key = random_key();
        std::string value = "untouched";
        const auto found = tree.find(key, value);
        ASSERT_TRUE(found) << found.err().message;
        const auto expected = model_.find(key);
        ASSERT_EQ(*found, expected != model_.end());
        ASSERT_EQ(value, expected != model_.end() ? expected->second : "untouched");
    }
    template <class Tree>
    void scan(Tree&& tree) {
        const std::string from = chance(10) ? std::string() : random_key();
        auto left = below(300);
        auto at = model_.lower_bound(from);
        const auto done = tree.scan(from, [&](std::string_view key, std::string_view value) {
            EXPECT_NE(at, model_.end());
            if (at == model_.end()) {
                return false;
            }
            EXPECT_EQ(at->first, key);
            EXPECT_EQ(at->second, value);
            ++at;
            return left-- > 0;
        });
        ASSERT_TRUE(done) << done.err().message;
        ASSERT_TRUE(at == model_.end() || left + 1 == 0) << "the scan ended early";
        const auto count = tree.count();
        ASSERT_TRUE(count);
        ASSERT_EQ(*count, model_.size());
    }

    // One transaction, kept or thrown away.
    void round(unsigned assignments, int operations) {
        const model_map before = model_;
        const page_store::page_map pages = store_.pages;
        editor changes(store_, id_, root_);
        for (int i = 0; i < operations && !HasFatalFailure(); ++i) {
            const std::uint64_t what = below(100);
            if (what < 10) {
                look(changes);
            } else if (what < 12) {
                scan(changes);
            } else if (what < 12 + assignments) {
                assign(changes);
            } else {
                erase(changes);
            }
        }
        ASSERT_FALSE(HasFatalFailure());
        if (chance(10)) {
            model_ = before;
            ASSERT_EQ(store_.pages, pages) << "a stored page changed before write()";
        } else {
            commit(changes);
            std::string value;
            EXPECT_EQ(changes.find("a", value).err().code, errc::invalid) << "done is done";
        }
        ASSERT_FALSE(HasFatalFailure());
        expect_tree(model_);
        for (int i = 0; i < 50 && !HasFatalFailure(); ++i) {
            look(view());
            look(knowing_view());
            scan(view());
        }
    }

    std::mt19937_64 random_{GetParam().seed};
    model_map model_;
};

TEST_P(TreeModel, AgreesWithTheMap) {
    int left = test::under_sanitizer ? GetParam().operations / 8 : GetParam().operations;
    for (int n = 0; left > 0 && !HasFatalFailure(); ++n) {
        const int operations =
            1 + static_cast<int>(below(static_cast<std::uint64_t>(GetParam().round)));
        left -= operations;
        // Filling and draining by turns.
        round(n / 8 % 2 == 0 ? 70 : 25, operations);
    }
    ASSERT_FALSE(HasFatalFailure());
    // Down to nothing, in one transaction and in any order.
    std::vector<std::string> keys;
    for (const auto& [key, value] : model_) {
        keys.push_back(key);
    }
    std::shuffle(keys.begin(), keys.end(), random_);
    editor last(store_, id_, root_);
    for (const std::string& key : keys) {
        const auto erased = last.erase(key, nullptr);
        ASSERT_TRUE(erased && *erased);
    }
    EXPECT_EQ(last.dirty_nodes(), 0U);
    commit(last);
    EXPECT_EQ(root_.offset, 0U);
    expect_tree({});
}

INSTANTIATE_TEST_SUITE_P(Random, TreeModel,
                         ::testing::Values(parameters{1, 16, 40, 256, 2000, 60000},
                                           parameters{2, 1024, 256, 256, 1000, 25000},
                                           parameters{3, 1024, 256, 2, 1500, 30000},
                                           parameters{4, 3, 8, 256, 4000, 60000},
                                           parameters{5, 200, 0, 4, 30, 6000},
                                           parameters{6, 1024, 16, 3, 300, 20000}));

}  // namespace
}  // namespace ndarena::directory
