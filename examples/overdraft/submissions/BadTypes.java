public class Main {
    public static void main(String[] args) {
        int balance = "solvent 0";
        System.out.println(balance);
    }
}
