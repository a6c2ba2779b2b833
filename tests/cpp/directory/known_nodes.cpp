// Lookups that trust an earlier check: right answers as long as the nodes are
// sound, and nothing outside the page whatever becomes of them.
#include "directory/fixture.hpp"
#include "directory/node.hpp"

#include "support/build.hpp"

#include <random>

namespace ndarena::directory {
namespace {

class KnownNodes : public TreeTest {
protected:
    static constexpr std::size_t keys = 3000;

    static std::string numbered(std::size_t i) { return "name/" + std::to_string(10000 + i); }
    void SetUp() override {
        editor changes(store_, id_, {});
        for (std::size_t i = 0; i < keys; ++i) {
            ASSERT_TRUE(changes.assign(numbered(i), "value " + std::to_string(i), nullptr));
        }
        commit(changes);
    }
    void find_all() {
        for (std::size_t i = 0; i < keys; ++i) {
            std::string value;
            const auto found = knowing_view().find(numbered(i), value);
            ASSERT_TRUE(found && *found);
            ASSERT_EQ(value, "value " + std::to_string(i));
            ASSERT_FALSE(*knowing_view().find(numbered(i) + "x", value));
        }
    }
    std::uint64_t offset_of_level(unsigned level) {
        for (const auto& [offset, bytes] : store_.pages) {
            if (load<std::uint8_t>(&bytes[offsetof(node_header, level)]) == level) {
                return offset;
            }
        }
        ADD_FAILURE() << "no such level";
        return 0;
    }
};

TEST_F(KnownNodes, AreReadOnce) {
    store_.reads = 0;
    find_all();
    EXPECT_EQ(store_.reads, store_.pages.size());
    find_all();
    EXPECT_EQ(store_.reads, store_.pages.size());
}

TEST_F(KnownNodes, AreForgottenWhenAnotherNodeTakesTheirPlace) {
    find_all();
    const page_store::page_map before = store_.pages;
    // The second change writes into the blocks that the first one has freed.
    for (const char* text : {"first", "second"}) {
        editor changes(store_, id_, root_);
        for (std::size_t i = 0; i < keys; i += 100) {
            ASSERT_TRUE(*changes.assign(numbered(i), text, nullptr));
        }
        commit(changes);
        for (std::size_t i = 0; i < keys; ++i) {
            std::string value;
            ASSERT_TRUE(*knowing_view().find(numbered(i), value));
            ASSERT_EQ(value, i % 100 == 0 ? text : "value " + std::to_string(i));
        }
    }
    std::size_t reused = 0;
    for (const auto& [offset, bytes] : store_.pages) {
        const auto old = before.find(offset);
        reused += old != before.end() && old->second != bytes ? 1U : 0U;
    }
    EXPECT_GE(reused, 10U) << "no block held two nodes: the test shows nothing";
}

// A reader that a writer overtakes meets anything. Its answer is thrown away;
// what counts is that it stays within the page and comes to an end.
TEST_F(KnownNodes, MayChangeInAnyWay) {
    find_all();
    store_.knows_hints = false;
    std::mt19937_64 random(1);
    const int rounds = test::under_sanitizer ? 4000 : 40000;
    unsigned errors = 0;
    for (int round = 0; round < rounds; ++round) {
        const unsigned level = round % 3 == 0 ? 1 : 0;
        page& node = store_.pages[offset_of_level(level)];
        const page sound = node;
        const auto edits = 1 + random() % 8;
        for (std::uint64_t i = 0; i < edits; ++i) {
            // Slots and heads of entries more often than text, and no checksum.
            const std::size_t limit = random() % 2 == 0 ? header_bytes + 256 : body_end;
            node[40 + random() % (limit - 40)] = static_cast<std::byte>(random());
        }
        for (int i = 0; i < 4; ++i) {
            std::string value;
            const auto found = knowing_view().find(numbered(random() % keys), value);
            errors += found ? 0U : 1U;
            EXPECT_LE(value.size(), body_bytes);
            EXPECT_TRUE(found || found.err().code == errc::corruption);
        }
        node = sound;
    }
    EXPECT_GT(errors, 0U);
    known_ = std::make_unique<known_nodes>();
    find_all();
}

// As soon as the checksum has changed, the node is looked at as a whole.
TEST_F(KnownNodes, AreCheckedAgainWhenTheirChecksumHasChanged) {
    find_all();
    page& root = store_.pages[root_.offset];
    root[body_end] ^= std::byte{1};
    std::string value;
    const auto found = knowing_view().find(numbered(1), value);
    ASSERT_FALSE(found);
    EXPECT_NE(found.err().message.find("checksum"), std::string::npos) << found.err().message;
}

TEST_F(KnownNodes, ANodeOfAnotherParentIsNoAnswer) {
    find_all();
    // The root's first child takes the place of its second, checksum and all.
    const entries e(store_.pages[root_.offset]);
    store_.pages[e.child(1).offset] = store_.pages[e.child(0).offset];
    std::string value;
    const auto found = knowing_view().find(std::string(e.key(1)) + "0", value);
    ASSERT_FALSE(found);
    EXPECT_NE(found.err().message.find("another place"), std::string::npos);
}

}  // namespace
}  // namespace ndarena::directory
