// A transaction under way.
#pragma once

#include "directory/store.hpp"

namespace ndarena::directory {

struct store::change {
    change(heap::heap& h, std::uint64_t limit, const identity& id)
        : heap(h),
          root(h.names()),
          source(h.seg(), limit),
          tree(source, id, {root.offset, root.record}) {}
    // Gives back the references of this process; names hold what they hold.
    ~change() {
        for (const auto& [offset, block] : adds) {
            (void)heap.deallocate(heap.base() + offset);
        }
    }
    change(const change&) = delete;
    change& operator=(const change&) = delete;

    heap::heap& heap;
    heap::names_root root;
    segment_source source;
    editor tree;
    // By payload offset: one reference of this process and, once committed, one
    // name's hold on each.
    std::unordered_multimap<std::uint64_t, std::uint32_t> adds;
    std::vector<std::uint32_t> drops;  // records whose name's hold ends
    bool broken = false;               // something failed halfway: it cannot be committed
};

}  // namespace ndarena::directory
