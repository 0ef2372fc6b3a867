//! The functions that compilers, and Rust's `core`, call on their own, and that the C library provides elsewhere
//! (memcpy(3) and its kin). Nothing here moves much.
//!
//! Each goes byte by byte through volatile accesses, since a compiler would take a plain loop for what it is
//! and have the function call itself.

use core::ffi::c_int;

/// # Safety
/// As memcpy(3) demands.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    for at in 0..bytes {
        // SAFETY: `at` is less than `bytes`, for which the caller vouches.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
    }
    to
}

/// # Safety
/// As memmove(3) demands.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    if to.addr() <= from.addr() {
        // SAFETY: what is read comes after what was written.
        return unsafe { memcpy(to, from, bytes) };
    }
    for at in (0..bytes).rev() {
        // SAFETY: `at` is less than `bytes`, for which the caller vouches.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
    }
    to
}

/// # Safety
/// As memset(3) demands.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: c_int, bytes: usize) -> *mut u8 {
    for at in 0..bytes {
        // SAFETY: `at` is less than `bytes`, for which the caller vouches. Of the value the lowest byte counts.
        unsafe { to.add(at).write_volatile(value as u8) };
    }
    to
}

/// # Safety
/// As memcmp(3) demands.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, bytes: usize) -> c_int {
    for at in 0..bytes {
        // SAFETY: `at` is less than `bytes`, for which the caller vouches.
        let (one, other) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
        if one != other {
            return c_int::from(one) - c_int::from(other);
        }
    }
    0
}

/// # Safety
/// As bcmp(3) demands.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, bytes: usize) -> c_int {
    // SAFETY: the same is asked of the caller.
    unsafe { memcmp(one, other, bytes) }
}

/// # Safety
/// As strlen(3) demands.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut bytes = 0;
    // SAFETY: nothing behind the byte of 0 is read, up to which the caller vouches.
    while unsafe { text.add(bytes).read_volatile() } != 0 {
        bytes += 1;
    }
    bytes
}
