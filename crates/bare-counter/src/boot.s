# From the BIOS to 64-bit mode. guest.ld places .boot at 0x7c00 and everything else behind it.

    .section .boot, "awx"
    .code16
    .globl boot_sector
boot_sector:
    cli
    cld
    ljmp    $0, $1f
1:  xorw    %ax, %ax
    movw    %ax, %ds
    movw    %ax, %es
    movw    %ax, %ss
    movw    $0x7c00, %sp
    # DL is the number of the disk. This loop loads `boot_chunks` times 64 sectors to the addresses from 0x7e00 on.
    movw    $boot_chunks, %cx
2:  movb    $0x42, %ah
    movw    $disk_packet, %si
    pushw   %cx
    pushw   %dx
    int     $0x13
    popw    %dx
    popw    %cx
    jc      4f
    addw    $0x800, packet_segment
    addl    $64, packet_sector
    loop    2b
    # A20 on, by the chipset's fast gate.
    inb     $0x92, %al
    orb     $2, %al
    andb    $0xfe, %al
    outb    %al, $0x92
    lgdtl   descriptor_table
    movl    %cr0, %eax
    orb     $1, %al
    movl    %eax, %cr0
    ljmpl   $0x08, $protected
    # The disk cannot be read. This loop prints that on the serial line, which the BIOS has initialised.
4:  movw    $0x3f8, %dx
    movw    $boot_error, %si
5:  lodsb
    testb   %al, %al
    jz      6f
    outb    %al, %dx
    jmp     5b
6:  hlt
    jmp     6b

boot_error:
    .asciz "error boot sector cannot read the disk\r\n"

    .balign 8
disk_packet:
    .byte   16, 0
    .word   64
    .word   0
packet_segment:
    .word   0x7e0
packet_sector:
    .quad   1

    .balign 8
descriptors:
    .quad   0
    .quad   0x00cf9a000000ffff      # 0x08: code, 32 bits
    .quad   0x00cf92000000ffff      # 0x10: data
    .quad   0x00af9a000000ffff      # 0x18: code, 64 bits
descriptor_table:
    .word   descriptor_table - descriptors - 1
    .long   descriptors

    .org    boot_sector + 510
    .word   0xaa55

    .section .text.boot, "ax"
    .code32
protected:
    movw    $0x10, %ax
    movw    %ax, %ds
    movw    %ax, %es
    movw    %ax, %ss
    # Memory that the program expects to be zero.
    movl    $bss_start, %edi
    movl    $bss_end, %ecx
    subl    %edi, %ecx
    xorl    %eax, %eax
    rep stosb
    # The first four GiB at their physical addresses, in pages of 2 MiB.
    movl    $page_tables + 0x1003, page_tables
    movl    $page_tables + 0x2003, %eax
    movl    $page_tables + 0x1000, %edi
    movl    $4, %ecx
1:  movl    %eax, (%edi)
    addl    $0x1000, %eax
    addl    $8, %edi
    loop    1b
    movl    $0x83, %eax
    movl    $page_tables + 0x2000, %edi
    movl    $2048, %ecx
2:  movl    %eax, (%edi)
    addl    $0x200000, %eax
    addl    $8, %edi
    loop    2b
    movl    $page_tables, %eax
    movl    %eax, %cr3
    # PAE, and the registers of SSE, which the compiler uses.
    movl    %cr4, %eax
    orl     $0x620, %eax
    movl    %eax, %cr4
    movl    $0xc0000080, %ecx
    rdmsr
    orl     $0x100, %eax
    wrmsr
    movl    %cr0, %eax
    andl    $0xfffffffb, %eax
    orl     $0x80000002, %eax
    movl    %eax, %cr0
    ljmpl   $0x18, $long_mode

    .code64
long_mode:
    movl    $stack_end, %esp
    xorl    %ebp, %ebp
    call    start
1:  hlt
    jmp     1b

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .globl page_tables
page_tables:
    .skip   6 * 4096
    .skip   65536
    .balign 16
stack_end:
