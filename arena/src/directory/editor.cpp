// Looking things up, the way down, and writing. The changes themselves are in
// editor_changes.cpp.
#include "directory/draft.hpp"

#include <new>

namespace ndarena::directory {

editor::editor(node_source& source, const identity& id, node_ref root)
    : source_(source), id_(id), root_ref_(root) {}

editor::~editor() = default;

error editor::refusal() const {
    if (done_) {
        return {errc::invalid, 0, "these changes to the names were written already", ""};
    }
    return {failure_, 0, "an earlier change to the names failed; none of them can be kept", ""};
}

result<void> editor::load_root() {
    if (root_ != nullptr) {
        return {};
    }
    if (root_ref_.offset == 0) {
        total_ = 0;
        return {};
    }
    auto node = std::make_unique<draft>();
    if (auto done = read_node(source_, id_, root_ref_, nullptr, node->bytes); !done) {
        return done;
    }
    node->take_over(root_ref_);
    if (!total_) {
        total_ = node->keys();
    }
    root_ = std::move(node);
    return {};
}

result<draft*> editor::load_child(draft& parent, unsigned index, std::string_view low,
                                  std::string_view high) {
    if (draft* present = parent.children[index].get()) {
        return present;
    }
    auto node = std::make_unique<draft>();
    const node_ref where = parent.view().child(index);
    const expectation expected{parent.level - 1, parent.view().child_keys(index)};
    if (auto done = read_node(source_, id_, where, &expected, node->bytes); !done) {
        return done.err();
    }
    node->take_over(where);
    if (!node->view().within(low, high)) {
        return damaged(where, "has keys that belong elsewhere");
    }
    parent.children[index] = std::move(node);
    return parent.children[index].get();
}

result<void> editor::descend(std::string_view key, path& way) {
    if (auto done = load_root(); !done || root_ == nullptr) {
        return done;
    }
    draft* node = root_.get();
    std::string_view low;
    std::string_view high;
    bool rightmost = true;
    for (;;) {
        const entries e = node->view();
        step& here = way.steps[way.depth++];
        here = {node, 0, rightmost};
        if (node->is_leaf()) {
            here.index = e.lower_bound(key);
            way.exact = e.has(here.index, key);
            return {};
        }
        const unsigned i = e.child_for(key);
        here.index = i;
        low = i > 0 ? e.key(i) : low;
        high = i + 1 < e.count() ? e.key(i + 1) : high;
        rightmost = rightmost && i + 1 == e.count();
        auto next = load_child(*node, i, low, high);
        if (!next) {
            return next.err();
        }
        node = *next;
    }
}

result<bool> editor::find(std::string_view key, std::string& value) try {
    if (!is_usable()) {
        return refusal();
    }
    const draft* node = root_.get();
    if (node == nullptr) {
        return tree_view(source_, id_, root_ref_).find(key, value);
    }
    for (;;) {
        const entries e = node->view();
        if (node->is_leaf()) {
            const unsigned i = e.lower_bound(key);
            if (!e.has(i, key)) {
                return false;
            }
            value.assign(e.value(i));
            return true;
        }
        const unsigned i = e.child_for(key);
        if (node->children[i] == nullptr) {
            const expectation expected{node->level - 1, e.child_keys(i)};
            return find_stored(source_, id_, e.child(i), &expected, key, value);
        }
        node = node->children[i].get();
    }
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

result<std::uint64_t> editor::count() try {
    if (!is_usable()) {
        return refusal();
    }
    if (!total_) {
        if (auto done = load_root(); !done) {
            return done.err();
        }
    }
    return *total_;
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

result<void> editor::scan_draft(const draft& node, std::string_view low, std::string_view high,
                                std::string_view from, const scan_function& f, bool& go_on) {
    const entries e = node.view();
    if (node.is_leaf()) {
        for (unsigned i = e.lower_bound(from); i < e.count() && go_on; ++i) {
            go_on = f(e.key(i), e.value(i));
        }
        return {};
    }
    for (unsigned i = e.child_for(from); i < e.count() && go_on; ++i) {
        const std::string_view first = i > 0 ? e.key(i) : low;
        const std::string_view behind = i + 1 < e.count() ? e.key(i + 1) : high;
        const draft* child = node.children[i].get();
        const expectation expected{node.level - 1, e.child_keys(i)};
        auto done = child != nullptr ? scan_draft(*child, first, behind, from, f, go_on)
                                     : scan_stored(source_, id_, e.child(i), &expected, first,
                                                   behind, from, f, go_on);
        if (!done) {
            return done;
        }
    }
    return {};
}

result<void> editor::scan(std::string_view from, const scan_function& f) try {
    if (!is_usable()) {
        return refusal();
    }
    if (root_ == nullptr) {
        return tree_view(source_, id_, root_ref_).scan(from, f);
    }
    bool go_on = true;
    return scan_draft(*root_, {}, {}, from, f, go_on);
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

result<node_ref> editor::write_node(draft& node, const placer& place) {
    if (!node.dirty) {
        return node.stored;
    }
    for (unsigned i = 0; i < node.children.size(); ++i) {
        draft* child = node.children[i].get();
        if (child != nullptr && child->dirty) {
            auto placed = write_node(*child, place);
            if (!placed) {
                return placed;
            }
            node.set_child(i, *placed, child->keys());
        }
    }
    auto block = place();
    if (!block) {
        return block.err();
    }
    page encoded;
    encode_node(encoded, id_, block->first, node.level, node.keys(), node.view());
    std::memcpy(block->second, encoded.data(), encoded.size());
    return block->first;
}

result<node_ref> editor::write(const placer& place) try {
    if (!is_usable()) {
        return refusal();
    }
    failure_ = errc::no_memory;  // until all is written
    auto root = root_ != nullptr ? write_node(*root_, place) : result<node_ref>(root_ref_);
    if (!root) {
        failure_ = root.err().code;
        return root;
    }
    failure_ = errc::ok;
    done_ = true;
    root_.reset();
    dirty_ = 0;
    return root;
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

}  // namespace ndarena::directory
