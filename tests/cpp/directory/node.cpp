// The bytes of a node, and everything that can be wrong with them.
#include "directory/node.hpp"

#include "directory/forge.hpp"

#include "support/build.hpp"

#include <random>

namespace ndarena::directory {
namespace {

constexpr std::uint64_t leaf_offset = 0x10000;
constexpr std::uint64_t inner_offset = 0x13000;

std::string hex(const page& node, std::size_t from, std::size_t size) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (std::size_t i = from; i < from + size; ++i) {
        const auto byte = std::to_integer<unsigned>(node[i]);
        text += {digits[byte >> 4], digits[byte & 15U], ' '};
    }
    return text;
}
bool is_zero(const page& node, std::size_t from, std::size_t end) {
    return std::all_of(node.data() + from, node.data() + end,
                       [](std::byte b) { return b == std::byte{0}; });
}

class Node : public TreeTest {
protected:
    // Three leaves of three keys under one root.
    void SetUp() override {
        const auto at = [](std::size_t i) { return leaf_offset + i * node_bytes; };
        store_.pages[at(0)] = forge::leaf(at(0), {{"a", "1"}, {"ab", ""}, {"b", "three"}});
        store_.pages[at(1)] = forge::leaf(at(1), {{"m", "4"}, {"mm", "5"}, {"mn", "6"}});
        store_.pages[at(2)] = forge::leaf(at(2), {{"x", "7"}, {"y", "8"}, {"z", "9"}});
        store_.pages[inner_offset] =
            forge::inner(inner_offset, 1, {{"", at(0), 3}, {"c", at(1), 3}, {"w", at(2), 3}});
        root_ = {inner_offset, page_store::record_of(inner_offset)};
    }
    model_map model() const {
        return {{"a", "1"},  {"ab", ""}, {"b", "three"}, {"m", "4"}, {"mm", "5"},
                {"mn", "6"}, {"x", "7"}, {"y", "8"},     {"z", "9"}};
    }
    // Asks everything. True: the answers are those of the sound tree.
    bool answers_alike() {
        for (const auto& [key, expected] : model()) {
            std::string value;
            const auto found = view().find(key, value);
            if (!found) {
                EXPECT_EQ(found.err().code, errc::corruption);
                return false;
            }
            EXPECT_TRUE(*found);
            EXPECT_EQ(value, expected);
        }
        model_map seen;
        const auto scanned = view().scan("", [&](std::string_view key, std::string_view value) {
            seen.emplace(key, value);
            return true;
        });
        EXPECT_TRUE(scanned);
        EXPECT_EQ(seen, model());
        const auto count = view().count();
        EXPECT_TRUE(count && *count == seen.size());
        return true;
    }
    void refuse(const page& node, const char* why) {
        const auto done = check_node(node, id_, {get<std::uint64_t>(sound_, 24), 0});
        ASSERT_FALSE(done) << "accepted though it " << why;
        EXPECT_EQ(done.err().code, errc::corruption);
        EXPECT_EQ(done.err().path, "");
        EXPECT_NE(done.err().message.find(why), std::string::npos) << done.err().message;
    }
    // The sound node with some bytes changed, and a fitting checksum.
    template <class T>
    void refuse_with(std::size_t at, T value, const char* why) {
        page node = sound_;
        put(node, at, value);
        sign(node);
        refuse(node, why);
    }
    void refuse_leaf(const std::vector<forge::leaf_entry>& entries, const char* why) {
        refuse(forge::leaf(leaf_offset, entries), why);
    }
    void refuse_inner(const std::vector<forged_child>& children, const char* why) {
        refuse(forge::inner(leaf_offset, 1, children), why);
    }

    page sound_ = forge::leaf(leaf_offset, {{"a", "1"}, {"ab", ""}, {"b", "three"}});
};

TEST_F(Node, ALeafByteByByte) {
    store_.next = leaf_offset;
    editor changes(store_, id_, {});
    ASSERT_TRUE(changes.assign("b", "three", nullptr));
    ASSERT_TRUE(changes.assign("a", "1", nullptr));
    ASSERT_TRUE(changes.assign("ab", "", nullptr));
    const auto root = changes.write(store_.placer());
    ASSERT_TRUE(root);
    ASSERT_EQ(root->offset, leaf_offset);
    const page& node = store_.pages[leaf_offset];
    EXPECT_EQ(hex(node, 0, 16), "4e 44 41 4e 4f 44 45 1a a0 a1 a2 a3 a4 a5 a6 a7 ");
    EXPECT_EQ(hex(node, 16, 16), "a8 a9 aa ab ac ad ae af 00 00 01 00 00 00 00 00 ");
    EXPECT_EQ(hex(node, 32, 16), "03 00 00 00 00 00 00 00 00 00 03 00 5c 00 00 00 ");
    EXPECT_EQ(hex(node, 48, 16), "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 ");
    EXPECT_EQ(hex(node, 64, 16), "46 00 4c 00 52 00 01 00 01 00 61 31 02 00 00 00 ");
    EXPECT_EQ(hex(node, 80, 16), "61 62 01 00 05 00 62 74 68 72 65 65 00 00 00 00 ");
    EXPECT_TRUE(is_zero(node, 92, 4092));
    EXPECT_EQ(hex(node, 4092, 4), "e2 89 d4 2e ");
    EXPECT_EQ(node, sound_);
}

TEST_F(Node, AnInnerNodeByteByByte) {
    const page forged = forge::inner(inner_offset, 1, {{"", 0x10000, 3}, {"m", 0x11000, 0x102}});
    page node;
    node.fill(std::byte{0xEE});
    encode_node(node, id_, {inner_offset, 0}, 1, 0x105, entries(forged));
    EXPECT_EQ(hex(node, 16, 16), "a8 a9 aa ab ac ad ae af 00 30 01 00 00 00 00 00 ");
    EXPECT_EQ(hex(node, 32, 16), "05 01 00 00 00 00 00 00 01 00 02 00 71 00 00 00 ");
    EXPECT_EQ(hex(node, 64, 16), "44 00 5a 00 00 00 70 00 00 00 00 00 01 00 00 00 ");
    EXPECT_EQ(hex(node, 80, 16), "00 00 03 00 00 00 00 00 00 00 01 00 77 00 00 00 ");
    EXPECT_EQ(hex(node, 96, 16), "00 10 01 00 00 00 00 00 02 01 00 00 00 00 00 00 ");
    EXPECT_EQ(hex(node, 112, 16), "6d 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 ");
    EXPECT_TRUE(is_zero(node, 113, 4092));
    EXPECT_EQ(hex(node, 4092, 4), "bb c8 17 b4 ");
    EXPECT_EQ(node, forged);
}

TEST_F(Node, TheSoundOnesAreAccepted) {
    EXPECT_TRUE(check_node(sound_, id_, {leaf_offset, 0}));
    EXPECT_TRUE(answers_alike());
    expect_tree(model());
    // The longest there are, and keys that differ in the last byte or in length.
    const std::string longest(max_key_bytes - 1, 'k');
    const std::string value(max_value_bytes, 'v');
    for (const auto& entries : std::vector<std::vector<forge::leaf_entry>>{
             {{longest, value}, {longest + '\0', value}, {longest + '\xff', value}},
             {{std::string(7, '\0'), ""}, {std::string(8, '\0'), ""}, {std::string(9, '\0'), ""}},
             {{"\x7f", ""}, {"\x80", ""}, {"\xff", ""}}}) {
        EXPECT_TRUE(check_node(forge::leaf(leaf_offset, entries), id_, {leaf_offset, 0}));
    }
}

// All that a bad cable does: an error, whatever the byte becomes.
TEST_F(Node, EverySingleByteOfEveryNode) {
    std::mt19937 random(1);
    for (const std::uint64_t offset : {leaf_offset, leaf_offset + node_bytes, inner_offset}) {
        page& node = store_.pages[offset];
        const int values = test::under_sanitizer ? 2 : 255;
        for (std::size_t at = 0; at < node_bytes; ++at) {
            const std::byte sound = node[at];
            for (int i = 0; i < values; ++i) {
                const auto other =
                    static_cast<std::byte>(values == 255 ? i + 1 : 1 << random() % 8);
                node[at] = sound ^ other;
                ASSERT_FALSE(check_node(node, id_, {offset, 0})) << "byte " << at;
            }
            ASSERT_FALSE(answers_alike()) << "byte " << at;
            node[at] = sound;
        }
    }
    EXPECT_TRUE(answers_alike());
}

// The same with a checksum that fits, as from somebody who means it: answers of
// any kind, but nothing outside the page, and no more than the tree can have.
TEST_F(Node, EverySingleByteWithAFittingChecksum) {
    store_.knows_hints = false;
    for (const std::uint64_t offset : {leaf_offset + node_bytes, inner_offset}) {
        page& node = store_.pages[offset];
        const page sound = node;
        for (std::size_t at = 0; at < 256; ++at) {
            for (unsigned value = 0; value < 256; value += test::under_sanitizer ? 5 : 1) {
                node[at] = static_cast<std::byte>(value);
                sign(node);
                std::size_t met = 0;
                const auto walked = view().walk(nullptr, [&](std::string_view, std::string_view) {
                    ++met;
                    return result<void>();
                });
                const auto count = view().count();
                EXPECT_TRUE(!walked || (count && met == *count));
                for (const auto& [key, expected] : model()) {
                    std::string found;
                    (void)view().find(key, found);
                }
                editor changes(store_, id_, root_);
                std::string old;
                (void)changes.erase("mm", &old);
                (void)changes.assign("mo", "x", &old);
                (void)changes.erase("b", &old);
                (void)changes.count();
                node = sound;
            }
        }
    }
    EXPECT_TRUE(answers_alike());
}

TEST_F(Node, HeadersThatLie) {
    refuse_with(0, std::uint8_t{'n'}, "is not a node");
    refuse_with(23, std::uint8_t{0}, "belongs to another arena");
    refuse_with(24, leaf_offset + node_bytes, "belongs to another place");
    refuse_with(32, std::uint64_t{2}, "has another number of keys than it says");
    refuse_with(32, ~std::uint64_t{0}, "has another number of keys than it says");
    refuse_with(40, std::uint8_t{24}, "is too high above the leaves");
    refuse_with(40, std::uint8_t{255}, "is too high above the leaves");
    refuse_with(42, std::uint16_t{0}, "has an impossible number of entries");
    refuse_with(42, std::uint16_t{672}, "has an impossible number of entries");
    refuse_with(42, std::uint16_t{0xFFFF}, "has an impossible number of entries");
    refuse_with(42, std::uint16_t{2}, "has a wrong slot");
    refuse_with(42, std::uint16_t{671}, "has a wrong slot");
    for (const unsigned used : {0U, 91U, 93U, 4093U, 0xFFFFU}) {
        page node = sound_;
        put(node, 44, static_cast<std::uint16_t>(used));
        sign(node);
        EXPECT_FALSE(check_node(node, id_, {leaf_offset, 0})) << used;
    }
    page node = sound_;
    put(node, 4092, get<std::uint32_t>(node, 4092) + 1);
    refuse(node, "has a wrong checksum");
    // An inner node taken for a leaf, and a leaf for an inner node.
    refuse_with(40, std::uint8_t{1}, "");
}

TEST_F(Node, SlotsThatLie) {
    for (unsigned slot = 0; slot < 3; ++slot) {
        for (const unsigned at : {0U, 64U, 69U, 71U, 77U, 82U, 83U, 88U, 4088U, 4091U, 4092U, 4095U,
                                  4096U, 0x8000U, 0xFFFFU}) {
            page node = sound_;
            if (get<std::uint16_t>(node, 64 + 2 * slot) == at) {
                continue;
            }
            put(node, 64 + 2 * slot, static_cast<std::uint16_t>(at));
            sign(node);
            EXPECT_FALSE(check_node(node, id_, {leaf_offset, 0})) << slot << " at " << at;
        }
    }
    // Two slots for one entry.
    refuse_with(66, std::uint16_t{70}, "");
}

TEST_F(Node, EntriesThatLie) {
    for (const std::size_t at : {70U, 72U, 76U, 78U, 82U, 84U}) {  // the lengths
        for (const unsigned length : {0U, 3U, 6U, 9U, 257U, 1025U, 4000U, 0x7FFFU, 0xFFFFU}) {
            page node = sound_;
            if (get<std::uint16_t>(node, at) == length) {
                continue;
            }
            put(node, at, static_cast<std::uint16_t>(length));
            sign(node);
            EXPECT_FALSE(check_node(node, id_, {leaf_offset, 0})) << length << " at " << at;
        }
    }
    refuse_leaf({{"", "no key"}}, "has an entry of impossible length");
    refuse_leaf({{std::string(max_key_bytes + 1, 'k'), ""}}, "has an entry of impossible length");
    refuse_leaf({{"k", std::string(max_value_bytes + 1, 'v')}},
                "has an entry of impossible length");
    // One key's last byte would be the checksum's first.
    const std::string value(256, 'v');
    std::vector<forge::leaf_entry> full;
    for (char c = 'a'; c < 'a' + 15; ++c) {
        full.emplace_back(std::string(1, c), value);
    }
    const std::size_t left = 4092 - 64 - 16 * 2 - 15 * (4 + 1 + 256) - 4;
    full.emplace_back("q" + std::string(left - 1, 'q'), "");
    EXPECT_TRUE(check_node(forge::leaf(leaf_offset, full), id_, {leaf_offset, 0}));
    full.back().first += 'q';
    refuse_leaf(full, "");
}

TEST_F(Node, KeysOutOfOrder) {
    const char* const why = "has keys out of order";
    refuse_leaf({{"b", ""}, {"a", ""}}, why);
    refuse_leaf({{"a", ""}, {"a", ""}}, why);
    refuse_leaf({{"ab", ""}, {"a", ""}}, why);
    refuse_leaf({{"\x80", ""}, {"\x7f", ""}}, why);
    refuse_leaf({{"prefix/b", ""}, {"prefix/a", ""}}, why);
    refuse_leaf({{"a long prefix/b", ""}, {"a long prefix/a", ""}}, why);
    refuse_leaf({{"a long prefix/b", ""}, {"a long prefix/b", ""}}, why);
    refuse_leaf({{std::string("a\0", 2), ""}, {"a", ""}}, why);
    refuse_leaf({{"a", ""}, {"c", ""}, {"b", ""}, {"d", ""}}, why);
    refuse_inner({{"", 1, 1}, {"b", 2, 1}, {"a", 3, 1}}, why);
    refuse_inner({{"", 1, 1}, {"b", 2, 1}, {"b", 3, 1}}, why);
}

TEST_F(Node, ChildrenThatCannotBe) {
    const auto at = [](std::size_t i) { return i * node_bytes; };
    EXPECT_TRUE(check_node(forge::inner(leaf_offset, 1, {{"", at(1), 1}}), id_, {leaf_offset, 0}));
    refuse_inner({{"a", at(1), 1}}, "has an entry of impossible length");
    refuse_inner({{"", at(1), 1}, {"", at(2), 1}}, "has an entry of impossible length");
    refuse_inner({{"", 0, 1}}, "has an impossible child");
    refuse_inner({{"", at(1), 1}, {"b", 0, 1}}, "has an impossible child");
    refuse_inner({{"", at(1), 0}}, "has an impossible child");
    refuse_inner({{"", at(1), ~std::uint64_t{0}}, {"b", at(2), 2}}, "has an impossible child");
    page node = forge::inner(leaf_offset, 1, {{"", at(1), 5}, {"b", at(2), 7}});
    put(node, 32, std::uint64_t{13});
    sign(node);
    refuse(node, "has another number of keys than it says");
}

}  // namespace
}  // namespace ndarena::directory
