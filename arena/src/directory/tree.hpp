// A copy-on-write B+tree from names to short values, in nodes of one page.
//
// Stored nodes never change: an `editor` collects changes in process memory and
// writes every node on the way to them anew, so that whoever has the old root
// goes on reading the old tree. `tree_view` reads the tree below one root.
//
// Nothing that is read is trusted. A page is copied, then checked (magic,
// arena, place, checksum, every slot and entry, order of the keys, level and
// number of keys as its parent says), and only the copy is used; `find` alone
// may go by an earlier check, see known_nodes.hpp. What fails is
// errc::corruption with the node's offset in the message and no path, which the
// caller knows. Errors of the source and of a callback come back as they are.
// Memory that runs out is errc::no_memory.
#pragma once

#include "base/base.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ndarena::directory {

constexpr std::size_t node_bytes = 4096;
constexpr std::size_t max_key_bytes = 1024;  // at least 1; ordered bytewise
constexpr std::size_t max_value_bytes = 256;
constexpr unsigned max_depth = 24;  // levels, leaves included

// Where a node lies. `record` is stored beside the offset and means nothing here.
struct node_ref {
    std::uint64_t offset = 0;  // 0: none
    std::uint32_t record = 0xFFFFFFFF;
};

using page = std::array<std::byte, node_bytes>;

// Of the arena. Part of every node, so that none is taken for another arena's.
struct identity {
    std::array<std::uint8_t, 16> uuid{};
};

// Gives the pages of stored nodes.
class node_source {
public:
    node_source() = default;
    node_source(const node_source&) = delete;
    node_source& operator=(const node_source&) = delete;
    virtual ~node_source();
    // Copies the page; an error if no node can be there.
    virtual result<void> read(node_ref where, page& into) = 0;
    // Where the page lies, for reading parts of it while it may change. Null:
    // there are only copies.
    virtual const std::byte* in_place(node_ref where) noexcept;
};

class known_nodes;  // those that were checked before

using scan_function = std::function<bool(std::string_view key, std::string_view value)>;

// The tree below a root, whose nodes stay as they are while it is used. Cheap
// to make; keeps nothing.
class tree_view {
public:
    tree_view(node_source& source, const identity& id, node_ref root, known_nodes* known = nullptr)
        : source_(source), id_(id), root_(root), known_(known) {}

    // False: not there. Checks the nodes on its way, unless they are known, but
    // not that all of their keys are within the bounds that their parents set;
    // `walk` and `scan` do.
    result<bool> find(std::string_view key, std::string& value);

    // Number of keys, as the root says.
    result<std::uint64_t> count();

    // Calls f(key, value) in order for the keys >= `from` until it returns
    // false. The views are good until f returns.
    result<void> scan(std::string_view from, const scan_function& f);

    // Every node, parents before children, and each entry of a leaf after its
    // node. Finds every breach of the tree's rules, and so meets no node twice.
    // What was reported before an error is to be thrown away.
    result<void> walk(
        const std::function<result<void>(node_ref)>& on_node,
        const std::function<result<void>(std::string_view, std::string_view)>& on_entry);

private:
    node_source& source_;
    identity id_;
    node_ref root_;
    known_nodes* known_;
};

struct draft;  // a node in process memory

// Uncommitted changes to the tree below a root. Changed nodes live in process
// memory until `write`.
//
// A change that fails while it looks for its place leaves everything as it was.
// One that fails later (no memory, a sibling that cannot be read) leaves the
// editor broken, and so does a failed `write`: then every call fails with the
// code of that failure. After `write` the editor is done: every call fails,
// `retired` excepted.
class editor {
public:
    editor(node_source& source, const identity& id, node_ref root);
    editor(const editor&) = delete;
    editor& operator=(const editor&) = delete;
    ~editor();

    // As in tree_view, of the state with all changes so far. The function of a
    // scan must not change the tree.
    result<bool> find(std::string_view key, std::string& value);
    result<std::uint64_t> count();
    result<void> scan(std::string_view from, const scan_function& f);

    // True: it replaced a value, which `old` (may be null) now holds. A value
    // equal to the present one changes nothing. Keys and values of impossible
    // length are errc::invalid.
    result<bool> assign(std::string_view key, std::string_view value, std::string* old);
    // False: not there. `old` (may be null) gets the value.
    result<bool> erase(std::string_view key, std::string* old);

    bool changed() const noexcept { return changed_; }
    bool is_broken() const noexcept { return failure_ != errc::ok; }
    // Exactly the number of blocks that `write` will ask for.
    std::size_t dirty_nodes() const noexcept { return dirty_; }

    // Gives a block: its name and the address of node_bytes writable bytes.
    using placer = std::function<result<std::pair<node_ref, std::byte*>>()>;

    // Writes all changed nodes, children before parents, each into a block from
    // `place`. Returns the new root, {} for an empty tree, the old one without
    // a call of `place` if nothing has changed. On error the blocks given out so
    // far hold nothing that anyone needs, and no stored node has changed.
    result<node_ref> write(const placer& place);

    // Stored nodes that the tree with the changes no longer contains.
    const std::vector<node_ref>& retired() const noexcept { return retired_; }

private:
    struct step {  // a node on the way to a key
        draft* node = nullptr;
        unsigned index = 0;      // the child that comes next; in a leaf the place of the key
        bool rightmost = false;  // no key of the tree lies behind this node
    };
    struct path {
        std::array<step, max_depth> steps;
        unsigned depth = 0;
        bool exact = false;  // the leaf has the key
        step& leaf() { return steps[depth - 1]; }
    };
    struct piece;  // an entry on its way into a node

    error refusal() const;
    bool is_usable() const noexcept { return failure_ == errc::ok && !done_; }
    result<void> load_root();
    result<draft*> load_child(draft& parent, unsigned index, std::string_view low,
                              std::string_view high);
    result<void> descend(std::string_view key, path& way);
    void touch(draft& node);
    void touch(path& way);
    std::unique_ptr<draft> new_node(unsigned level);
    result<void> insert(path& way, piece& entry);
    std::unique_ptr<draft> split(const step& where, unsigned at, piece& entry,
                                 std::string& separator);
    result<void> grow(std::unique_ptr<draft> right, std::string_view separator);
    result<bool> try_merge(draft& parent, unsigned left);
    result<void> shrink(path& way);
    void lower_root();
    result<void> scan_draft(const draft& node, std::string_view low, std::string_view high,
                            std::string_view from, const scan_function& f, bool& go_on);
    result<node_ref> write_node(draft& node, const placer& place);

    node_source& source_;
    identity id_;
    node_ref root_ref_;                   // the root while `root_` is null
    std::unique_ptr<draft> root_;         // the root once it was needed for a change
    std::optional<std::uint64_t> total_;  // number of keys, once known
    std::vector<node_ref> retired_;
    std::size_t dirty_ = 0;
    bool changed_ = false;
    bool done_ = false;
    errc failure_ = errc::ok;
};

}  // namespace ndarena::directory
