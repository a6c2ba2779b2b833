// Trees of nodes that are sound one by one and do not belong together.
#include "directory/forge.hpp"

namespace ndarena::directory {
namespace {

class HostileTree : public TreeTest {
protected:
    static std::uint64_t at(std::size_t i) { return (i + 16) * node_bytes; }
    void leaf(std::size_t i, const std::vector<forge::leaf_entry>& entries) {
        store_.pages[at(i)] = forge::leaf(at(i), entries);
    }
    void inner(std::size_t i, std::uint8_t level, const std::vector<forged_child>& children) {
        store_.pages[at(i)] = forge::inner(at(i), level, children);
    }
    void root(std::size_t i) { root_ = {at(i), page_store::record_of(at(i))}; }

    std::string walk_error() {
        const auto walked = view().walk(nullptr, nullptr);
        EXPECT_TRUE(walked || walked.err().code == errc::corruption);
        return walked ? "" : walked.err().message;
    }
    std::string scan_error() {
        const auto scanned = view().scan("", [](auto, auto) { return true; });
        EXPECT_TRUE(scanned || scanned.err().code == errc::corruption);
        return scanned ? "" : scanned.err().message;
    }
    std::string find_error(const std::string& key) {
        std::string value;
        const auto found = view().find(key, value);
        EXPECT_TRUE(found || found.err().code == errc::corruption);
        // The second time with nodes that may be known.
        const auto again = knowing_view().find(key, value);
        const auto known = knowing_view().find(key, value);
        EXPECT_EQ(bool(found), bool(again));
        EXPECT_EQ(bool(found), bool(known));
        return found ? "" : found.err().message;
    }
    std::string assign_error(const std::string& key) {
        editor changes(store_, id_, root_);
        const auto done = changes.assign(key, "new", nullptr);
        EXPECT_TRUE(done || done.err().code == errc::corruption);
        return done ? "" : done.err().message;
    }
    // Every way to meet the breach on the way to a key.
    void expect_everywhere(const std::string& key, const std::string& why) {
        EXPECT_NE(walk_error().find(why), std::string::npos) << "walk: " << walk_error();
        EXPECT_NE(scan_error().find(why), std::string::npos) << "scan: " << scan_error();
        EXPECT_NE(find_error(key).find(why), std::string::npos) << "find: " << find_error(key);
        EXPECT_NE(assign_error(key).find(why), std::string::npos) << assign_error(key);
    }
};

TEST_F(HostileTree, ANodeBelowItself) {
    inner(0, 1, {{"", at(0), 1}});
    root(0);
    expect_everywhere("a", "is not on the level below its parent");
}

TEST_F(HostileTree, ACycleOverSeveralLevels) {
    inner(0, 3, {{"", at(1), 1}});
    inner(1, 2, {{"", at(2), 1}});
    inner(2, 1, {{"", at(0), 1}});
    root(0);
    expect_everywhere("a", "is not on the level below its parent");
}

TEST_F(HostileTree, ALevelLeftOut) {
    inner(0, 2, {{"", at(1), 1}});
    leaf(1, {{"a", "1"}});
    root(0);
    expect_everywhere("a", "is not on the level below its parent");
}

TEST_F(HostileTree, ALeafAboveTheOthers) {
    inner(0, 2, {{"", at(1), 1}, {"m", at(2), 1}});
    inner(1, 1, {{"", at(3), 1}});
    leaf(2, {{"m", "1"}});
    leaf(3, {{"a", "1"}});
    root(0);
    expect_everywhere("m", "is not on the level below its parent");
    EXPECT_EQ(find_error("a"), "") << "on the sound way";
}

TEST_F(HostileTree, ParentAndChildDisagreeOnTheKeys) {
    inner(0, 1, {{"", at(1), 1}, {"m", at(2), 3}});
    leaf(1, {{"a", "1"}});
    leaf(2, {{"m", "1"}, {"n", "2"}});
    root(0);
    expect_everywhere("m", "has another number of keys than its parent says");
}

TEST_F(HostileTree, TwoParentsOfOneNode) {
    inner(0, 1, {{"", at(1), 1}, {"m", at(1), 1}});
    leaf(1, {{"a", "1"}});
    root(0);
    EXPECT_NE(walk_error().find("has keys that belong elsewhere"), std::string::npos);
    EXPECT_NE(scan_error().find("has keys that belong elsewhere"), std::string::npos);
    EXPECT_NE(assign_error("m").find("has keys that belong elsewhere"), std::string::npos);
}

TEST_F(HostileTree, KeysOutsideTheBoundsOfTheirParent) {
    for (const char* const key : {"a", "lzz", "w", "x"}) {
        inner(0, 1, {{"", at(1), 1}, {"m", at(2), 1}, {"w", at(3), 1}});
        leaf(1, {{"b", "1"}});
        leaf(2, {{key, "1"}});
        leaf(3, {{"y", "1"}});
        root(0);
        EXPECT_NE(walk_error().find("has keys that belong elsewhere"), std::string::npos) << key;
        EXPECT_NE(scan_error().find("has keys that belong elsewhere"), std::string::npos) << key;
        EXPECT_NE(assign_error("n").find("has keys that belong elsewhere"), std::string::npos);
    }
}

TEST_F(HostileTree, SeparatorsOutsideTheBoundsOfTheirParent) {
    // As low as the bound leaves nothing to the left; as high, nothing to the right.
    for (const char* const separator : {"a", "m", "w", "x"}) {
        inner(0, 2, {{"", at(1), 1}, {"m", at(2), 2}, {"w", at(3), 1}});
        inner(1, 1, {{"", at(4), 1}});
        inner(2, 1, {{"", at(5), 1}, {separator, at(6), 1}});
        inner(3, 1, {{"", at(7), 1}});
        leaf(4, {{"a", "1"}});
        leaf(5, {{"m", "1"}});
        leaf(6, {{"v", "1"}});
        leaf(7, {{"x", "1"}});
        root(0);
        EXPECT_NE(walk_error().find("has keys that belong elsewhere"), std::string::npos);
        EXPECT_NE(assign_error("n").find("has keys that belong elsewhere"), std::string::npos);
        EXPECT_EQ(find_error("a"), "");
    }
}

// Each level leads twice to the one below: 2^23 ways, were they all gone.
TEST_F(HostileTree, ManyWaysToOneLeaf) {
    constexpr std::uint8_t levels = 23;
    leaf(0, {{"a", "1"}});
    std::uint64_t keys = 1;
    for (std::uint8_t level = 1; level <= levels; ++level) {
        const std::string separator(1, static_cast<char>('b' + levels - level));
        inner(level, level, {{"", at(level - 1U), keys}, {separator, at(level - 1U), keys}});
        keys *= 2;
    }
    root(levels);
    store_.reads = 0;
    EXPECT_NE(walk_error(), "");
    EXPECT_NE(scan_error(), "");
    EXPECT_LE(store_.reads, 200U);
}

TEST_F(HostileTree, AChildThatIsNowhere) {
    inner(0, 1, {{"", at(1), 1}, {"m", at(77), 1}});
    leaf(1, {{"a", "1"}});
    root(0);
    expect_everywhere("m", "no page at");
    EXPECT_EQ(find_error("a"), "");
    EXPECT_EQ(assign_error("a"), "");
}

TEST_F(HostileTree, ARootThatIsNowhere) {
    root(5);
    expect_everywhere("m", "no page at");
    EXPECT_FALSE(view().count());
}

// A merge looks at a neighbour that no lookup has met. What it finds wrong there
// breaks the editor; nothing of the tree has changed.
TEST_F(HostileTree, ADamagedNeighbourBreaksTheEditor) {
    inner(0, 1, {{"", at(1), 2}, {"m", at(2), 1}});
    leaf(1, {{"a", "1"}, {"b", "2"}});
    leaf(2, {{"c", "belongs elsewhere"}});
    root(0);
    const page_store::page_map before = store_.pages;
    editor changes(store_, id_, root_);
    const auto erased = changes.erase("a", nullptr);
    ASSERT_FALSE(erased);
    EXPECT_EQ(erased.err().code, errc::corruption);
    EXPECT_TRUE(changes.is_broken());
    std::string value;
    EXPECT_EQ(changes.find("b", value).err().code, errc::corruption);
    EXPECT_EQ(changes.write(store_.placer()).err().code, errc::corruption);
    EXPECT_EQ(store_.pages, before);
}

// The highest tree that is allowed, every node on its right edge full to the
// last byte: it can be read and changed, but one more key would need a level
// more.
TEST_F(HostileTree, TheHighestTreeCannotGrow) {
    constexpr std::uint8_t top = max_depth - 1;
    const auto key = [](unsigned depth, char c, std::size_t size) {
        std::string text = std::string(depth, 'z') + c;
        text.resize(size, '-');
        return text;
    };
    const std::string value(max_value_bytes, 'v');
    const std::string last = key(top, 'c', max_key_bytes);
    leaf(0, {{key(top, 'a', max_key_bytes), value},
             {key(top, 'b', max_key_bytes), value},
             {last, value}});
    std::uint64_t keys = 3;
    for (std::uint8_t level = 1; level <= top; ++level) {
        const unsigned depth = top - level;
        inner(level, level,
              {{"", at(99), 1},
               {key(depth, 'a', max_key_bytes), at(99), 1},
               {key(depth, 'b', max_key_bytes), at(99), 1},
               {key(depth, 'c', max_key_bytes), at(99), 1},
               {key(depth, 'd', 836), at(level - 1U), keys}});
        keys += 4;
        ASSERT_EQ(get<std::uint16_t>(store_.pages[at(level)], 44), 4092U);
    }
    root(top);
    std::string found;
    EXPECT_TRUE(*view().find(last, found));
    EXPECT_EQ(*view().count(), keys);
    editor changes(store_, id_, root_);
    EXPECT_TRUE(*changes.assign(last, "other", nullptr));
    EXPECT_EQ(changes.dirty_nodes(), max_depth);
    const page_store::page_map before = store_.pages;
    editor more(store_, id_, root_);
    const auto refused = more.assign(key(top, 'd', max_key_bytes), value, nullptr);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.err().code, errc::no_memory);
    EXPECT_TRUE(more.is_broken());
    EXPECT_EQ(store_.pages, before);
}

}  // namespace
}  // namespace ndarena::directory
