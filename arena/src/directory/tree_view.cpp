#include "directory/node.hpp"

#include <new>

namespace ndarena::directory {
namespace {

// Levels fall by one at each step down, so no node can lie below itself; and
// since the leaves below two children of a node have no key in common and none
// is empty, the second visit of a node fails at the bounds.
class walker {
public:
    walker(node_source& source, const identity& id,
           const std::function<result<void>(node_ref)>& on_node,
           const std::function<result<void>(std::string_view, std::string_view)>& on_entry)
        : source_(source), id_(id), on_node_(on_node), on_entry_(on_entry) {}

    result<void> run(node_ref where, const expectation* expected, std::string_view low,
                     std::string_view high) {
        const auto copy = std::make_unique<page>();
        if (auto done = read_node(source_, id_, where, expected, *copy); !done) {
            return done;
        }
        const entries e(*copy);
        if (!e.within(low, high)) {
            return damaged(where, "has keys that belong elsewhere");
        }
        if (on_node_) {
            if (auto done = on_node_(where); !done) {
                return done;
            }
        }
        for (unsigned i = 0; i < e.count(); ++i) {
            auto done = e.is_leaf() ? on_leaf_entry(e, i) : on_child(*copy, e, i, low, high);
            if (!done) {
                return done;
            }
        }
        return {};
    }

private:
    result<void> on_leaf_entry(const entries& e, unsigned i) {
        return on_entry_ ? on_entry_(e.key(i), e.value(i)) : result<void>();
    }
    result<void> on_child(const page& parent, const entries& e, unsigned i, std::string_view low,
                          std::string_view high) {
        const expectation below = child_of(parent, e, i);
        return run(e.child(i), &below, i > 0 ? e.key(i) : low,
                   i + 1 < e.count() ? e.key(i + 1) : high);
    }
    static expectation child_of(const page& parent, const entries& e, unsigned i) {
        return {load<std::uint8_t>(&parent[offsetof(node_header, level)]) - 1U, e.child_keys(i)};
    }

    node_source& source_;
    const identity& id_;
    const std::function<result<void>(node_ref)>& on_node_;
    const std::function<result<void>(std::string_view, std::string_view)>& on_entry_;
};

}  // namespace

result<void> scan_stored(node_source& source, const identity& id, node_ref where,
                         const expectation* expected, std::string_view low, std::string_view high,
                         std::string_view from, const scan_function& f, bool& go_on) {
    const auto copy = std::make_unique<page>();
    if (auto done = read_node(source, id, where, expected, *copy); !done) {
        return done;
    }
    const entries e(*copy);
    if (!e.within(low, high)) {
        return damaged(where, "has keys that belong elsewhere");
    }
    if (e.is_leaf()) {
        for (unsigned i = e.lower_bound(from); i < e.count() && go_on; ++i) {
            go_on = f(e.key(i), e.value(i));
        }
        return {};
    }
    const unsigned level = load<std::uint8_t>(&(*copy)[offsetof(node_header, level)]);
    for (unsigned i = e.child_for(from); i < e.count() && go_on; ++i) {
        const expectation below{level - 1, e.child_keys(i)};
        auto done = scan_stored(source, id, e.child(i), &below, i > 0 ? e.key(i) : low,
                                i + 1 < e.count() ? e.key(i + 1) : high, from, f, go_on);
        if (!done) {
            return done;
        }
    }
    return {};
}

result<std::uint64_t> tree_view::count() try {
    if (root_.offset == 0) {
        return std::uint64_t{0};
    }
    page copy;
    if (auto done = read_node(source_, id_, root_, nullptr, copy); !done) {
        return done.err();
    }
    return load<std::uint64_t>(&copy[offsetof(node_header, keys)]);
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

result<void> tree_view::scan(std::string_view from, const scan_function& f) try {
    bool go_on = root_.offset != 0;
    return go_on ? scan_stored(source_, id_, root_, nullptr, {}, {}, from, f, go_on)
                 : result<void>();
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

result<void> tree_view::walk(
    const std::function<result<void>(node_ref)>& on_node,
    const std::function<result<void>(std::string_view, std::string_view)>& on_entry) try {
    return root_.offset == 0 ? result<void>()
                             : walker(source_, id_, on_node, on_entry).run(root_, nullptr, {}, {});
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

}  // namespace ndarena::directory
