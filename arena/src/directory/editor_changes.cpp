// How entries come and go. A change first finds its place, which may fail
// without harm; from `touch` on a failure leaves the editor broken.
//
// Nodes split where it keeps them fullest: behind the last entry if keys come
// in ascending order, in the middle of the bytes otherwise. The three largest
// entries fit into a node, so both halves always fit. A node that gets empty
// leaves its parent; one that is less than two fifths full joins a neighbour if
// both fit into one. An inner node may be left with a single child.
#include "directory/draft.hpp"

#include <algorithm>
#include <cassert>
#include <new>

namespace ndarena::directory {
namespace {

// The shortest string that is greater than `low` and not greater than `high`.
std::string_view separate(std::string_view low, std::string_view high) {
    const auto shorter = std::min(low.size(), high.size());
    const auto differ = std::mismatch(
        low.begin(), low.begin() + static_cast<std::ptrdiff_t>(shorter), high.begin());
    return high.substr(0, static_cast<std::size_t>(differ.second - high.begin()) + 1);
}

// The entries of a node and the one that comes in at `at`.
class lengthened {
public:
    lengthened(const draft& node, unsigned at, const std::byte* bytes, std::size_t size)
        : entries_(node.view()),
          head_(node.is_leaf() ? leaf_head : inner_head),
          at_(at),
          bytes_(bytes),
          size_(size) {}
    unsigned count() const { return entries_.count() + 1; }
    bool is_new(unsigned i) const { return i == at_; }
    unsigned old_index(unsigned i) const { return i < at_ ? i : i - 1; }
    const std::byte* entry(unsigned i) const {
        return is_new(i) ? bytes_ : entries_.entry(old_index(i));
    }
    std::size_t size(unsigned i) const {
        return is_new(i) ? size_ : entries_.entry_bytes(old_index(i));
    }
    std::string_view key(unsigned i) const {
        return text(entry(i) + head_, load<std::uint16_t>(entry(i)));
    }
    // Bytes of the entries before `end`, slots included.
    std::size_t bytes_before(unsigned end) const {
        std::size_t sum = 0;
        for (unsigned i = 0; i < end; ++i) {
            sum += slot_bytes + size(i);
        }
        return sum;
    }

private:
    entries entries_;
    std::size_t head_;
    unsigned at_;
    const std::byte* bytes_;
    std::size_t size_;
};

// The first entry that goes to the right.
unsigned choose_split(const draft& node, const lengthened& all, unsigned at, bool rightmost) {
    const bool ascending = node.next_insert == at && at > 0;
    if (at == node.count && (ascending || rightmost)) {
        return at;
    }
    if (ascending) {
        return all.bytes_before(at + 1) <= body_bytes ? at + 1 : at;
    }
    const std::size_t total = all.bytes_before(all.count());
    std::size_t left = 0;
    unsigned i = 0;
    while (2 * (left + slot_bytes + all.size(i)) <= total) {
        left += slot_bytes + all.size(i);
        ++i;
    }
    // Entry i straddles the middle: it goes where it leaves the halves more equal.
    const std::size_t with = left + slot_bytes + all.size(i);
    if (i + 1 < all.count() && std::max(with, total - with) < std::max(left, total - left)) {
        ++i;
    }
    return std::max(i, 1U);
}

}  // namespace

struct editor::piece {
    std::array<std::byte, max_entry_bytes> bytes{};
    std::size_t size = 0;
    std::unique_ptr<draft> child;  // for an inner node

    void make_leaf(std::string_view key, std::string_view value) {
        size = leaf_head + key.size() + value.size();
        put_leaf_entry(bytes.data(), key, value);
    }
    void make_inner(std::string_view separator, std::unique_ptr<draft> node) {
        size = inner_head + separator.size();
        put_inner_entry(bytes.data(), separator, {}, 0);
        child = std::move(node);
    }
    void put(draft& node, unsigned at) {
        if (!node.is_leaf()) {
            node.children.insert(node.children.begin() + at, std::move(child));
        }
        std::memcpy(node.make_entry(at, size), bytes.data(), size);
    }
};

std::unique_ptr<draft> editor::new_node(unsigned level) {
    auto node = std::make_unique<draft>();
    node->clear(level);
    node->dirty = true;
    ++dirty_;
    return node;
}

void editor::touch(draft& node) {
    changed_ = true;
    if (!node.dirty) {
        retired_.push_back(node.stored);
        node.dirty = true;
        ++dirty_;
        node.repack();
    }
}

void editor::touch(path& way) {
    for (unsigned i = 0; i < way.depth; ++i) {
        touch(*way.steps[i].node);
    }
}

result<bool> editor::assign(std::string_view key, std::string_view value, std::string* old) try {
    if (!is_usable()) {
        return refusal();
    }
    if (key.empty() || key.size() > max_key_bytes || value.size() > max_value_bytes) {
        return error{errc::invalid, 0,
                     "names have 1 to " + std::to_string(max_key_bytes) + " bytes, and " +
                         std::to_string(max_value_bytes) + " bytes of description at most",
                     ""};
    }
    path way;
    if (auto done = descend(key, way); !done) {
        return done.err();
    }
    piece entry;
    entry.make_leaf(key, value);
    if (way.depth == 0) {
        auto leaf = new_node(0);
        entry.put(*leaf, 0);
        root_ = std::move(leaf);
        total_ = 1;
        changed_ = true;
        return false;
    }
    draft& leaf = *way.leaf().node;
    const unsigned at = way.leaf().index;
    if (way.exact) {
        const std::string_view present = leaf.view().value(at);
        if (old != nullptr) {
            old->assign(present);
        }
        if (present == value) {
            return true;
        }
    }
    failure_ = errc::no_memory;  // until the change is whole
    touch(way);
    if (way.exact && leaf.view().entry_bytes(at) == entry.size) {
        std::memcpy(leaf.entry(at), entry.bytes.data(), entry.size);
        failure_ = errc::ok;
        return true;
    }
    if (way.exact) {
        leaf.remove_entry(at);
    }
    if (auto done = insert(way, entry); !done) {
        failure_ = done.err().code;
        return done.err();
    }
    if (!way.exact) {
        ++*total_;
    }
    failure_ = errc::ok;
    return way.exact;
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

result<void> editor::insert(path& way, piece& entry) {
    unsigned depth = way.depth - 1;
    unsigned at = way.steps[depth].index;
    for (;;) {
        const step& here = way.steps[depth];
        if (here.node->fits(entry.size)) {
            entry.put(*here.node, at);
            return {};
        }
        std::string separator;
        auto right = split(here, at, entry, separator);
        if (depth == 0) {
            return grow(std::move(right), separator);
        }
        entry.make_inner(separator, std::move(right));
        at = way.steps[--depth].index + 1;
    }
}

std::unique_ptr<draft> editor::split(const step& where, unsigned at, piece& entry,
                                     std::string& separator) {
    draft& node = *where.node;
    const lengthened all(node, at, entry.bytes.data(), entry.size);
    const unsigned middle = choose_split(node, all, at, where.rightmost);
    separator = node.is_leaf() ? separate(all.key(middle - 1), all.key(middle)) : all.key(middle);
    auto right = new_node(node.level);
    for (unsigned i = middle; i < all.count(); ++i) {
        const unsigned to = right->count;
        if (!node.is_leaf()) {
            right->children.push_back(
                std::move(all.is_new(i) ? entry.child : node.children[all.old_index(i)]));
        }
        // The separator of the first child goes up.
        const bool blank = !node.is_leaf() && i == middle;
        const std::size_t size = blank ? inner_head : all.size(i);
        std::byte* copy = right->make_entry(to, size);
        std::memcpy(copy, all.entry(i), size);
        if (blank) {
            save(copy, std::uint16_t{0});
        }
    }
    right->next_insert = at >= middle ? at - middle + 1 : 0;
    node.truncate(at < middle ? middle - 1 : middle);
    if (!node.is_leaf()) {
        node.children.resize(node.count);
    }
    if (at < middle) {
        entry.put(node, at);
    }
    return right;
}

result<void> editor::grow(std::unique_ptr<draft> right, std::string_view separator) {
    if (root_->level + 1 >= max_depth) {
        return error{errc::no_memory, 0, "the tree of names has no room for another level", ""};
    }
    auto root = new_node(root_->level + 1);
    piece entry;
    entry.make_inner({}, std::move(root_));
    entry.put(*root, 0);
    entry.make_inner(separator, std::move(right));
    entry.put(*root, 1);
    root_ = std::move(root);
    return {};
}

result<bool> editor::erase(std::string_view key, std::string* old) try {
    if (!is_usable()) {
        return refusal();
    }
    path way;
    if (auto done = descend(key, way); !done) {
        return done.err();
    }
    if (!way.exact) {
        return false;
    }
    draft& leaf = *way.leaf().node;
    if (old != nullptr) {
        old->assign(leaf.view().value(way.leaf().index));
    }
    failure_ = errc::no_memory;  // until the change is whole
    touch(way);
    leaf.remove_entry(way.leaf().index);
    if (auto done = shrink(way); !done) {
        failure_ = done.err().code;
        return done.err();
    }
    --*total_;
    failure_ = errc::ok;
    return true;
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

result<void> editor::shrink(path& way) {
    for (unsigned depth = way.depth - 1; depth > 0; --depth) {
        draft& node = *way.steps[depth].node;
        draft& parent = *way.steps[depth - 1].node;
        const unsigned at = way.steps[depth - 1].index;
        if (node.count == 0) {
            parent.remove_child(at);
            --dirty_;
            continue;
        }
        if (!node.is_underfull()) {
            break;
        }
        bool merged = false;
        for (unsigned left = at > 0 ? at - 1 : at; left <= at && left + 1 < parent.count && !merged;
             ++left) {
            auto tried = try_merge(parent, left);
            if (!tried) {
                return tried.err();
            }
            merged = *tried;
        }
        if (!merged) {
            break;
        }
    }
    lower_root();
    return {};
}

result<bool> editor::try_merge(draft& parent, unsigned left) {
    std::array<draft*, 2> pair{};
    for (unsigned i = 0; i < 2; ++i) {
        const entries e = parent.view();
        const unsigned at = left + i;
        auto loaded = load_child(parent, at, at > 0 ? e.key(at) : std::string_view{},
                                 at + 1 < e.count() ? e.key(at + 1) : std::string_view{});
        if (!loaded) {
            return loaded.err();
        }
        pair[i] = *loaded;
    }
    draft& to = *pair[0];
    draft& from = *pair[1];
    const std::string_view separator = parent.view().key(left + 1);
    const std::size_t regained = to.is_leaf() ? 0 : separator.size();
    if (to.used + from.used + regained > body_bytes) {
        return false;
    }
    touch(to);
    const entries moving = from.view();
    for (unsigned i = 0; i < from.count; ++i) {
        if (to.is_leaf() || i > 0) {
            const std::size_t size = moving.entry_bytes(i);
            std::memcpy(to.make_entry(to.count, size), moving.entry(i), size);
        } else {
            put_inner_entry(to.make_entry(to.count, inner_head + separator.size()), separator,
                            moving.child(i), moving.child_keys(i));
        }
        if (!to.is_leaf()) {
            to.children.push_back(std::move(from.children[i]));
        }
    }
    to.next_insert = 0;
    if (from.dirty) {
        --dirty_;
    } else {
        retired_.push_back(from.stored);
    }
    parent.remove_child(left + 1);
    return true;
}

void editor::lower_root() {
    while (root_ != nullptr && (root_->count == 0 || (!root_->is_leaf() && root_->count == 1))) {
        const std::unique_ptr<draft> old = std::move(root_);
        root_ref_ = {};
        if (old->count == 1) {
            root_ref_ = old->view().child(0);
            root_ = std::move(old->children[0]);
        }
        if (old->dirty) {
            --dirty_;
        } else {
            retired_.push_back(old->stored);
        }
    }
}

}  // namespace ndarena::directory
