// Pages for tests of this layer: a map instead of a heap, with faults on order.
#pragma once

#include "directory/known_nodes.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

namespace ndarena::directory {

inline identity test_identity() {
    identity id;
    for (std::size_t i = 0; i < id.uuid.size(); ++i) {
        id.uuid[i] = static_cast<std::uint8_t>(0xA0 + i);
    }
    return id;
}

class page_store : public node_source {
public:
    using page_map = std::map<std::uint64_t, page>;
    static constexpr std::uint64_t never = ~std::uint64_t{0};

    result<void> read(node_ref where, page& into) override {
        if (reads_left == 0) {
            return error{errc::os, 5, "no read today", ""};
        }
        reads_left -= reads_left == never ? 0 : 1;
        ++reads;
        const auto found = pages.find(where.offset);
        if (found == pages.end()) {
            return error{errc::corruption, 0, "no page at " + std::to_string(where.offset), ""};
        }
        EXPECT_TRUE(!knows_hints || where.record == record_of(where.offset)) << "not the hint";
        into = found->second;
        return {};
    }
    const std::byte* in_place(node_ref where) noexcept override {
        const auto found = pages.find(where.offset);
        return found == pages.end() ? nullptr : found->second.data();
    }
    // As an allocator does: what was freed last goes first.
    void free(node_ref gone) {
        ASSERT_EQ(pages.erase(gone.offset), 1U) << "retired twice, or never stored";
        unused.push_back(gone.offset);
    }
    result<std::pair<node_ref, std::byte*>> place() {
        if (places_left == 0) {
            return error{errc::no_memory, 0, "no place today", ""};
        }
        places_left -= places_left == never ? 0 : 1;
        std::uint64_t at = next;
        if (unused.empty()) {
            next += node_bytes;
        } else {
            at = unused.back();
            unused.pop_back();
        }
        page& fresh = pages[at];
        fresh.fill(std::byte{0xEE});
        return std::pair<node_ref, std::byte*>{{at, record_of(at)}, fresh.data()};
    }
    editor::placer placer() {
        return [this] { return place(); };
    }
    static std::uint32_t record_of(std::uint64_t offset) {
        return static_cast<std::uint32_t>(offset / node_bytes * 7);
    }

    page_map pages;
    std::vector<std::uint64_t> unused;
    std::uint64_t next = std::uint64_t{1} << 20;
    bool knows_hints = true;  // false: damaged nodes may have any
    std::uint64_t reads = 0;
    std::uint64_t reads_left = never;
    std::uint64_t places_left = never;
};

using model_map = std::map<std::string, std::string>;

class TreeTest : public ::testing::Test {
protected:
    tree_view view() { return {store_, id_, root_}; }
    // Reads nodes that it has met before where they lie.
    tree_view knowing_view() { return {store_, id_, root_, known_.get()}; }

    // Writes the changes, frees what they retired, and compares with the pages
    // that can be reached: nothing leaks, nothing is freed too early or twice.
    void commit(editor& changes) {
        const std::size_t before = store_.pages.size();
        const std::size_t announced = changes.dirty_nodes();
        const auto root = changes.write(store_.placer());
        ASSERT_TRUE(root) << root.err().message;
        ASSERT_EQ(store_.pages.size(), before + announced);
        for (const node_ref& gone : changes.retired()) {
            ASSERT_NO_FATAL_FAILURE(store_.free(gone));
        }
        root_ = *root;
    }
    void expect_tree(const model_map& model) {
        auto at = model.begin();
        std::set<std::uint64_t> reached;
        auto walked = view().walk(
            [&](node_ref where) {
                EXPECT_TRUE(reached.insert(where.offset).second) << "a node met twice";
                return result<void>();
            },
            [&](std::string_view key, std::string_view value) {
                if (at == model.end() || at->first != key || at->second != value) {
                    return result<void>(error{errc::invalid, 0, "not as in the model", ""});
                }
                ++at;
                return result<void>();
            });
        ASSERT_TRUE(walked) << walked.err().message;
        ASSERT_EQ(at, model.end()) << "keys are missing";
        ASSERT_EQ(reached.size(), store_.pages.size()) << "pages leaked";
        const auto count = view().count();
        ASSERT_TRUE(count);
        ASSERT_EQ(*count, model.size());
    }

    identity id_ = test_identity();
    page_store store_;
    node_ref root_;
    std::unique_ptr<known_nodes> known_ = std::make_unique<known_nodes>();
};

}  // namespace ndarena::directory
