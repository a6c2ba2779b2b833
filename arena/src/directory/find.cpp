// Looking one key up in stored nodes.
#include "directory/known_nodes.hpp"
#include "directory/node.hpp"

#include <algorithm>
#include <new>

namespace ndarena::directory {
namespace {

// A node of which nothing is certain while it is read: every number is loaded
// once, judged, and only then used. For copies that were checked it says the
// same as `entries`.
class unsure_node {
public:
    // False: no node that belongs there.
    bool look(const std::byte* bytes, const identity& id, node_ref where) noexcept {
        bytes_ = bytes;
        header_ = load<node_header>(bytes);
        keep_what_was_loaded();
        return header_.magic == node_magic && header_.uuid == id.uuid &&
               header_.offset == where.offset && header_.level < max_depth && header_.count != 0 &&
               header_.count <= most_entries;
    }
    bool is_as(const expectation& expected) const noexcept {
        return header_.level == expected.level && header_.keys == expected.keys;
    }
    bool is_leaf() const noexcept { return header_.level == 0; }

    // The leaf's entry with the key, or the inner node's child below which it
    // belongs. False: not in this leaf, unless `ok` says that the node is damaged.
    bool search(std::string_view wanted, bool& ok) noexcept {
        unsigned first = is_leaf() ? 0 : 1;
        unsigned last = header_.count;
        while (first < last) {
            const unsigned middle = (first + last) / 2;
            ok = go_to(middle);
            if (!ok) {
                return false;
            }
            const int order = key().compare(wanted);
            if (order == 0) {
                return true;
            }
            (order < 0 ? first : last) = order < 0 ? middle + 1 : middle;
        }
        ok = is_leaf() || go_to(first - 1);
        return ok && !is_leaf();
    }
    // Of the entry that the search has ended at.
    std::string_view value() const noexcept {
        return text(entry_ + leaf_head + key_bytes_, value_bytes_);
    }
    node_ref child() const noexcept {
        return {load<std::uint64_t>(entry_ + 6), load<std::uint32_t>(entry_ + 2)};
    }
    expectation below() const noexcept {
        return {header_.level - 1U, load<std::uint64_t>(entry_ + 14)};
    }

private:
    // The compiler might else load a number again after it was judged.
    static void keep_what_was_loaded() noexcept {
        std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    std::string_view key() const noexcept {
        return text(entry_ + (is_leaf() ? leaf_head : inner_head), key_bytes_);
    }
    // False: entry i does not lie in the page.
    bool go_to(unsigned i) noexcept {
        const std::size_t at = load<std::uint16_t>(bytes_ + header_bytes + slot_bytes * i);
        keep_what_was_loaded();
        const std::size_t head = is_leaf() ? leaf_head : inner_head;
        if (at + head > body_end) {
            return false;
        }
        entry_ = bytes_ + at;
        key_bytes_ = load<std::uint16_t>(entry_);
        value_bytes_ = is_leaf() ? load<std::uint16_t>(entry_ + 2) : 0;
        keep_what_was_loaded();
        return at + head + key_bytes_ + value_bytes_ <= body_end;
    }

    const std::byte* bytes_ = nullptr;
    node_header header_{};
    const std::byte* entry_ = nullptr;
    std::size_t key_bytes_ = 0;
    std::size_t value_bytes_ = 0;
};

std::uint32_t checksum_in(const std::byte* bytes) noexcept {
    return load<std::uint32_t>(bytes + body_end);
}

}  // namespace

node_source::~node_source() = default;

const std::byte* node_source::in_place(node_ref) noexcept { return nullptr; }

result<bool> find_stored(node_source& source, const identity& id, node_ref where,
                         const expectation* expected, std::string_view key, std::string& value,
                         known_nodes* known) {
    const base::overtaken_reads quiet;
    page copy;
    unsure_node node;
    expectation below{};
    for (;;) {
        const std::byte* present = known != nullptr ? source.in_place(where) : nullptr;
        if (present == nullptr || !known->has(where, checksum_in(present)) ||
            !node.look(present, id, where) || (expected != nullptr && !node.is_as(*expected))) {
            if (auto done = read_node(source, id, where, expected, copy); !done) {
                return done.err();
            }
            (void)node.look(copy.data(), id, where);
            if (known != nullptr) {
                known->add(where, checksum_in(copy.data()));
            }
        }
        bool ok = true;
        const bool found = node.search(key, ok);
        if (!ok) {
            return damaged(where, "has changed since it was checked");
        }
        if (node.is_leaf()) {
            if (found) {
                value.assign(node.value());
            }
            return found;
        }
        below = node.below();
        expected = &below;
        where = node.child();
    }
}

result<bool> tree_view::find(std::string_view key, std::string& value) try {
    return root_.offset == 0 ? result<bool>(false)
                             : find_stored(source_, id_, root_, nullptr, key, value, known_);
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

}  // namespace ndarena::directory
