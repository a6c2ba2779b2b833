// The names of one arena, as one process uses them.
//
// Reads take no lock: they look at the root, walk the tree, and look at the
// root again; whoever changed it in between makes them walk anew. Changes go
// through a transaction, of which an arena has one at a time: a gate keeps the
// other threads of this process out, the segment's directory lock the other
// processes. Until it is committed it exists in this process's memory only.
#pragma once

#include "directory/known_nodes.hpp"
#include "directory/source.hpp"

#include "heap/heap.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>

namespace ndarena::directory {

// Opens a heap so that names survive where nothing else does.
result<std::shared_ptr<heap::heap>> open_heap(const heap::segment_options& options);

// Keeps what a reader without a slot sees from being reused, until it is gone.
using reader_pin = std::shared_ptr<const void>;

class store {
public:
    // The heap's own; it lives as long as the heap.
    static store& of(heap::heap& h);
    explicit store(heap::heap& h) noexcept;
    ~store();
    store(const store&) = delete;
    store& operator=(const store&) = delete;

    // -- reading --
    result<bool> find(std::string_view name, entry& e);
    // The array's bytes, with a reference of this process to the block that
    // `heap::deallocate` gives back; where there is no slot, `pin` keeps it.
    // Null: there is no such name, or it has no bytes (`found` tells which).
    result<void*> hold(std::string_view name, entry& e, bool& found, reader_pin& pin);
    result<std::uint64_t> count();
    // Up to `limit` names that start with `prefix`, in order, the first of them
    // after `after` if that is given.
    result<std::vector<std::string>> list(std::string_view prefix,
                                          const std::optional<std::string>& after,
                                          std::size_t limit);
    // Readers without a slot see the names of the moment when they last did this.
    result<void> refresh();

    // -- changing; each is a transaction of its own unless this thread has one --
    // `address`: the start of a block of this process that the name shall hold,
    // null for an array without bytes. exists: unless `replace`.
    result<void> put(std::string_view name, entry e, const void* address, bool replace);
    result<bool> erase(std::string_view name);
    // False: there is no `from`. exists: there is a `to`.
    result<bool> rename(std::string_view from, std::string_view to);
    result<bool> set_attrs(std::string_view name, std::string_view attrs);

    // -- transactions of this thread --
    // lock_timeout: another one was not over in time. invalid: there is one.
    result<void> begin(std::uint64_t timeout_ms);
    result<void> commit();
    void abort() noexcept;
    bool in_transaction() const noexcept;

    // Compares the tree with what the heap counts; one sentence for each breach.
    std::vector<std::string> check();

private:
    struct change;

    std::uint64_t limit() const;  // for segment_source
    segment_source source() const { return {heap_.seg(), limit()}; }
    identity id() const noexcept { return {heap_.seg().header().uuid}; }
    template <class F>
    auto steadily(F&& read)
        -> decltype(read(std::declval<const heap::names_root&>(), std::declval<segment_source&>()));
    result<heap::names_root> root_to_read();
    result<void> require_change() const;
    template <class F>
    auto in_change(F&& f) -> decltype(f(std::declval<change&>()));
    result<std::string> place_value(change& t, entry& e);
    result<void> drop_value(change& t, std::string_view value);
    result<void> drop_block(change& t, std::uint64_t offset, std::uint32_t hint);
    result<void> write(change& t);
    bool enter(std::uint64_t deadline) noexcept;
    void leave() noexcept;
    static std::uint64_t this_thread() noexcept;

    heap::heap& heap_;
    std::atomic<std::uint64_t> gate_{0};  // process and thread that change names, 0: none
    std::unique_ptr<change> change_;      // guarded by the gate
    known_nodes known_;                   // of the arena, by whatever root

    // readers without a slot
    mutable platform::mutex reading_;
    std::optional<heap::names_root> seen_;
    reader_pin pin_;
};

// What the names of a root page lead to, for making the volatile state anew.
result<std::vector<heap::survivor>> find_survivors(const segment::segment& seg,
                                                   const segment::root_page& root);

}  // namespace ndarena::directory
